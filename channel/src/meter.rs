//! The messages of a gRPC body as its bytes go by: how long each says that it is, without keeping any of them. The wire
//! form is the gRPC HTTP/2 protocol's: a flag, four bytes of length, the message.

/// A flag and four bytes of length.
const PREFIX: u8 = 5;

/// Finds the first message that is longer than it may be. Counts bytes as they go over the wire: what is compressed counts
/// as such.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    largest: u32,
    /// How many bytes of the prefix are there.
    prefix: u8,
    length: u32,
    /// Bytes of the message that are still to come.
    left: u32,
}

/// A message of so many bytes, where at most so many are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) length: u32,
    pub(crate) largest: u32,
}

impl Meter {
    pub(crate) fn new(largest: u32) -> Self {
        Self { largest, prefix: 0, length: 0, left: 0 }
    }

    /// The next bytes of the body.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = bytes.len().min(self.left as usize);
                self.left -= taken as u32; // at most `left`
                bytes = &bytes[taken..];
                continue;
            }
            if self.prefix > 0 {
                self.length = self.length << 8 | u32::from(bytes[0]);
            }
            self.prefix += 1;
            bytes = &bytes[1..];
            if self.prefix == PREFIX {
                let length = std::mem::take(&mut self.length);
                if length > self.largest {
                    return Err(TooLarge { length, largest: self.largest });
                }
                (self.prefix, self.left) = (0, length);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![0xff; length as usize]);
        bytes
    }

    #[test]
    fn each_message_is_measured_however_the_bytes_are_cut() {
        let body: Vec<u8> = [0, 3, 10, 0, 10, 11].into_iter().flat_map(message).collect();
        for cut in 1..=body.len() {
            let mut meter = Meter::new(10);
            let too_large = body.chunks(cut).find_map(|bytes| meter.pass(bytes).err());
            assert_eq!(too_large, Some(TooLarge { length: 11, largest: 10 }), "cut every {cut} bytes");
        }
        assert_eq!(Meter::new(11).pass(&body), Ok(()));
    }

    #[test]
    fn the_largest_length_is_read() {
        let too_large = TooLarge { length: u32::MAX, largest: 4 };
        assert_eq!(Meter::new(4).pass(&[1, 255, 255, 255, 255]), Err(too_large));
        assert_eq!(Meter::new(0).pass(&message(0)), Ok(()));
    }
}

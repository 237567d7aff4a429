//! How many bytes of messages a gRPC body has, as its bytes go by: without the prefixes of a flag and four bytes of
//! length, as gRFC A66 counts.

/// A flag and four bytes of length.
const PREFIX: u8 = 5;

#[derive(Clone, Debug, Default)]
pub(super) struct Sizes {
    /// How many bytes of the prefix are there.
    prefix: u8,
    length: u32,
    /// Bytes of the message that are still to come.
    left: u32,
    total: u64,
}

impl Sizes {
    /// The next bytes of the body.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(self.left);
                self.left -= taken;
                self.total += u64::from(taken);
                bytes = bytes.split_at(taken as usize).1;
                continue;
            }
            if self.prefix > 0 {
                self.length = self.length << 8 | u32::from(first);
            }
            self.prefix += 1;
            if self.prefix == PREFIX {
                (self.prefix, self.left) = (0, std::mem::take(&mut self.length));
            }
            bytes = rest;
        }
    }

    /// Bytes of messages so far.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_without_their_prefixes_however_the_bytes_are_cut() {
        let mut body = Vec::new();
        for length in [3u32, 0, 300] {
            body.push(0);
            body.extend(length.to_be_bytes());
            body.extend(vec![7; length as usize]);
        }
        for cut in [1, 2, 4, 5, 6, body.len()] {
            let mut sizes = Sizes::default();
            body.chunks(cut).for_each(|bytes| sizes.pass(bytes));
            assert_eq!(sizes.total(), 303, "cut every {cut} bytes");
        }
    }
}

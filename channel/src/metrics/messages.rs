//! How many bytes of messages went through, without gRPC's framing: each message has a head of five bytes, a flag and
//! its length, and may lie anywhere in the pieces of a body.

const HEAD: u8 = 5;

/// Counts the messages of one body, piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MessageBytes {
    total: u64,
    /// Bytes of the next head that have come.
    head: u8,
    /// The length that the head says, as far as it has come; then what is still to come of the message.
    left: u32,
}

impl MessageBytes {
    /// The count of a body that is there as a whole.
    pub(crate) fn of(body: &[u8]) -> u64 {
        let mut bytes = Self::default();
        bytes.add(body);
        bytes.total
    }

    /// Counts one more piece.
    pub(crate) fn add(&mut self, mut piece: &[u8]) {
        loop {
            if self.head == HEAD {
                let part = piece.len().min(self.left as usize);
                self.total += part as u64;
                self.left -= part as u32;
                piece = &piece[part..];
                if self.left == 0 {
                    self.head = 0;
                }
            }
            let Some((byte, rest)) = piece.split_first() else { return };
            if self.head > 0 {
                self.left = self.left << 8 | u32::from(*byte);
            }
            self.head += 1;
            piece = rest;
        }
    }

    /// The bytes so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![7; length as usize]);
        bytes
    }

    #[test]
    fn messages_count_without_their_framing_however_the_body_is_cut() {
        let body = [message(0), message(300), message(1), message(70_000), message(0)].concat();
        assert_eq!(MessageBytes::of(&body), 70_301);
        for size in [1, 2, 3, 5, 7, 1_000] {
            let mut bytes = MessageBytes::default();
            body.chunks(size).for_each(|piece| bytes.add(piece));
            assert_eq!(bytes.total(), 70_301, "cut into pieces of {size}");
        }
    }

    #[test]
    fn what_has_not_come_yet_does_not_count() {
        assert_eq!(MessageBytes::of(&[]), 0);
        assert_eq!(MessageBytes::of(&[0, 0, 0, 0]), 0);
        assert_eq!(MessageBytes::of(&message(10)[..9]), 4);
    }
}

//! Cuts a stream of bytes into the protocol's messages: a type byte, a length that counts itself, a body.

/// The bytes of type and length.
const HEADER: usize = 5;

/// The largest buffer that is kept between two messages, in bytes.
const SPARE: usize = 1_024;

/// One direction of a connection, from its first message with a type byte on.
#[derive(Debug)]
pub(super) struct Frames {
    /// How many bytes of a body are passed on, by the type of its message. The rest is skipped.
    kept: fn(u8) -> usize,
    /// The header and the beginning of an incomplete message. Empty between two messages.
    partial: Vec<u8>,
    /// How many bytes of the incomplete message are to come. Without meaning while its header is incomplete.
    missing: usize,
    is_broken: bool,
}

/// A message, or the beginning of one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Frame<'a> {
    /// The type of the message, and the length of its body.
    Begins(u8, usize),
    /// The type of the message, and the beginning of its body.
    Whole(u8, &'a [u8]),
}

impl Frames {
    pub(super) fn new(kept: fn(u8) -> usize) -> Self {
        Self { kept, partial: Vec::new(), missing: 0, is_broken: false }
    }

    /// Calls `seen` twice for each message: when its header is complete, and when all of it is. Stops for ever if
    /// `seen` returns `false`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame<'_>) -> bool) {
        while !bytes.is_empty() && !self.is_broken {
            bytes = match whole(bytes) {
                Some((kind, body, rest)) if self.partial.is_empty() => {
                    let kept = &body[..body.len().min((self.kept)(kind))];
                    self.is_broken = !(seen(Frame::Begins(kind, body.len())) && seen(Frame::Whole(kind, kept)));
                    rest
                }
                _ => self.piece(bytes, &mut seen),
            }
        }
    }

    /// Returns whether a length was invalid or `seen` has stopped: no further message is recognized.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Takes the bytes that belong to one incomplete message, and returns the rest.
    fn piece<'a>(&mut self, mut bytes: &'a [u8], seen: &mut impl FnMut(Frame<'_>) -> bool) -> &'a [u8] {
        if self.partial.len() < HEADER {
            let (header, rest) = split(bytes, HEADER - self.partial.len());
            self.partial.extend_from_slice(header);
            bytes = rest;
            let Some((header, _)) = self.partial.split_first_chunk() else { return bytes };
            match body_length(header).filter(|length| seen(Frame::Begins(header[0], *length))) {
                Some(length) => self.missing = length,
                None => self.is_broken = true,
            }
        }
        if self.is_broken {
            self.partial.clear();
            return &[];
        }
        let (body, rest) = split(bytes, self.missing);
        self.missing -= body.len();
        let most = HEADER + (self.kept)(self.partial[0]);
        let (kept, _) = split(body, most - self.partial.len());
        self.partial.extend_from_slice(kept);
        if self.missing == 0 {
            self.is_broken = !seen(Frame::Whole(self.partial[0], &self.partial[HEADER..]));
            self.partial.clear();
            self.partial.shrink_to(SPARE);
        }
        rest
    }
}

/// Returns the first message of `bytes`, if it is complete: type, body, and the bytes after it.
fn whole(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk()?;
    let (body, rest) = rest.split_at_checked(body_length(header)?)?;
    Some((header[0], body, rest))
}

/// Returns the length of the body. `None` if the length is negative or shorter than itself, as in the driver.
fn body_length(header: &[u8; HEADER]) -> Option<usize> {
    let length = i32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    usize::try_from(length).ok()?.checked_sub(4)
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at(at.min(bytes.len()))
}

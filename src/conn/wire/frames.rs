//! Cuts a stream of bytes into the protocol's messages: a type byte, a length that counts itself, a body.

/// Type and length.
const HEADER: usize = 5;

/// A buffer larger than this is given back after use.
const SPARE: usize = 1_024;

/// One direction of a connection, from where its messages have a type byte. Bodies are skipped by their length.
#[derive(Debug)]
pub(super) struct Frames {
    /// Only so much of the beginning of a body is looked at, and kept of a message that comes in pieces. By its type.
    kept: fn(u8) -> usize,
    /// Header and beginning of a message of which more is to come; else empty.
    partial: Vec<u8>,
    /// How much of that message's body is to come. Without meaning while its header is not complete.
    missing: usize,
    is_broken: bool,
}

/// A message, as far as it is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Frame<'a> {
    /// Its type, and how long its body will be.
    Begins(u8, usize),
    /// Its type, and the beginning of its body.
    Whole(u8, &'a [u8]),
}

impl Frames {
    pub(super) fn new(kept: fn(u8) -> usize) -> Self {
        Self { kept, partial: Vec::new(), missing: 0, is_broken: false }
    }

    /// Calls `seen` with the begin of each message, as soon as its header is there, and with the whole. Stops for ever when that returns `false`.
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

    /// Whether a length made no sense, or nobody wants to see more: what follows cannot be told apart.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Takes what belongs to one message, which is not all there, and returns the rest.
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

/// The message that `bytes` begin with, if all of it is there: type, body, and what follows it.
fn whole(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk()?;
    let (body, rest) = rest.split_at_checked(body_length(header)?)?;
    Some((header[0], body, rest))
}

/// As the driver reads it: none that is shorter than itself or negative.
fn body_length(header: &[u8; HEADER]) -> Option<usize> {
    let length = i32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    usize::try_from(length).ok()?.checked_sub(4)
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at(at.min(bytes.len()))
}

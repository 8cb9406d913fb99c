//! Splits what a client sends into PostgreSQL's messages, whatever the boundaries of the reads.
//!
//! A connection begins with packets without a type byte: a request for encryption, a cancel request, the startup
//! packet. After that, every message is a type byte, a length and a body. The proxy passes anything else, such as TLS,
//! on unchanged as [`Kind::Opaque`].

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The server refuses longer packets before the startup is done, and longer messages after it.
const STARTUP_MAX: usize = 10_000;
const MESSAGE_MAX: usize = 0x3fff_ffff;

/// The kind of a [`Frame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SSLRequest or GSSENCRequest.
    Encryption,
    /// CancelRequest, on a connection of its own.
    Cancel,
    /// The startup packet.
    Startup,
    /// A message with this type byte, such as `b'Q'` for Query.
    Message(u8),
    /// Bytes without known messages.
    Opaque,
}

/// One whole message, with its header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

/// Collects bytes until a message is whole.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    stage: Stage,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Startup,
    Messages,
    Opaque,
}

impl Framer {
    /// Adds bytes that were read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole message, if there is one.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let (kind, end) = match self.stage {
            Stage::Startup => self.startup()?,
            Stage::Messages => self.message()?,
            Stage::Opaque => self.opaque()?,
        };
        let rest = self.buffer.split_off(end);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        Some(Frame { kind, bytes })
    }

    /// Returns the bytes of an incomplete message.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    fn startup(&mut self) -> Option<(Kind, usize)> {
        let length = self.number(0)? as usize;
        if !(8..=STARTUP_MAX).contains(&length) {
            return self.opaque();
        }
        let code = self.number(4)?;
        self.whole(length)?;
        let kind = match code {
            SSL | GSS => Kind::Encryption,
            CANCEL => Kind::Cancel,
            _ => {
                self.stage = Stage::Messages;
                Kind::Startup
            }
        };
        Some((kind, length))
    }

    fn message(&mut self) -> Option<(Kind, usize)> {
        let length = self.number(1)? as usize;
        if !(4..=MESSAGE_MAX).contains(&length) {
            return self.opaque();
        }
        self.whole(1 + length)?;
        Some((Kind::Message(self.buffer[0]), 1 + length))
    }

    fn opaque(&mut self) -> Option<(Kind, usize)> {
        self.stage = Stage::Opaque;
        self.whole(1)?;
        Some((Kind::Opaque, self.buffer.len()))
    }

    fn number(&self, at: usize) -> Option<u32> {
        let bytes = self.buffer.get(at..at + 4)?;
        bytes.try_into().ok().map(u32::from_be_bytes)
    }

    fn whole(&self, length: usize) -> Option<()> {
        (self.buffer.len() >= length).then_some(())
    }
}

mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let length = 8 + body.len() as u32;
        [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = 4 + body.len() as u32;
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    fn conversation() -> Vec<Frame> {
        let frame = |kind, bytes| Frame { kind, bytes };
        vec![
            frame(Kind::Encryption, packet(GSS, b"")),
            frame(Kind::Encryption, packet(SSL, b"")),
            frame(Kind::Startup, packet(196_608, b"user\0postgres\0\0")),
            frame(Kind::Message(b'Q'), message(b'Q', b"SELECT 'Q'\0")),
            frame(Kind::Message(b'S'), message(b'S', b"")),
            frame(Kind::Message(b'd'), message(b'd', &[b'Q'; 300])),
            frame(Kind::Message(b'X'), message(b'X', b"")),
        ]
    }

    fn frames(framer: &mut Framer, reads: &[&[u8]]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for read in reads {
            framer.push(read);
            frames.extend(std::iter::from_fn(|| framer.next()));
        }
        frames
    }

    #[test]
    fn messages_are_found_wherever_the_reads_split_them() {
        let stream: Vec<u8> = conversation().into_iter().flat_map(|frame| frame.bytes).collect();
        for at in 0..=stream.len() {
            let (head, tail) = stream.split_at(at);
            assert_eq!(frames(&mut Framer::default(), &[head, tail]), conversation(), "split at {at}");
        }
    }

    #[test]
    fn messages_are_found_byte_by_byte() {
        let stream: Vec<u8> = conversation().into_iter().flat_map(|frame| frame.bytes).collect();
        let reads: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(frames(&mut Framer::default(), &reads), conversation());
    }

    #[test]
    fn a_cancel_request_is_known() {
        let bytes = packet(CANCEL, &[0; 8]);
        let expected = vec![Frame { kind: Kind::Cancel, bytes: bytes.clone() }];
        assert_eq!(frames(&mut Framer::default(), &[&bytes]), expected);
    }

    #[test]
    fn tls_is_passed_on_as_it_is() {
        let request = packet(SSL, b"");
        let hello = [0x16, 3, 1, 2, 0, 1, 0];
        let found = frames(&mut Framer::default(), &[&request, &hello, b"Q"]);
        let kinds: Vec<Kind> = found.iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [Kind::Encryption, Kind::Opaque, Kind::Opaque]);
        assert_eq!(found[1].bytes, hello);
    }

    #[test]
    fn half_a_message_is_kept_back() {
        let mut framer = Framer::default();
        assert_eq!(frames(&mut framer, &[&[0, 0, 0]]), []);
        assert_eq!(framer.rest(), [0, 0, 0]);
    }
}

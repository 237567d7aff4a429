//! HTTP/2 frames as bytes (RFC 9113), as far as scripts need them. Header blocks are written with HPACK's literals
//! (RFC 7541, no table, no Huffman) and never read: a script knows what it was sent by the stream's number.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A frame's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 9113's")]
pub enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
}

const KINDS: [Kind; 10] = [
    Kind::Data,
    Kind::Headers,
    Kind::Priority,
    Kind::RstStream,
    Kind::Settings,
    Kind::PushPromise,
    Kind::Ping,
    Kind::GoAway,
    Kind::WindowUpdate,
    Kind::Continuation,
];

/// Error codes of RST_STREAM and GOAWAY (RFC 9113, section 7).
pub mod error {
    #![expect(missing_docs, reason = "the names are RFC 9113's")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
    pub const INADEQUATE_SECURITY: u32 = 12;
}

/// What a SETTINGS frame can say (RFC 9113, section 6.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// How many streams the client may have open.
    MaxConcurrentStreams(u32),
    /// How many bytes of a stream's body may be sent before a WINDOW_UPDATE.
    InitialWindowSize(u32),
}

/// The SETTINGS and PING flag, and that of a body's or header block's last frame.
pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;

/// No frame that a client sends us is larger: we never announce more than the default.
const LARGEST: usize = 16 * 1024;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: Kind,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The last frame that the client sends on its stream.
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & END_STREAM != 0
    }

    /// The error code that an RST_STREAM carries.
    pub fn error_code(&self) -> Option<u32> {
        let code = self.payload.get(..4)?.try_into().ok()?;
        (self.kind == Kind::RstStream).then(|| u32::from_be_bytes(code))
    }

    pub(super) fn new(kind: Kind, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Frame { kind, flags, stream, payload: payload.into() }
    }

    pub(super) fn settings(settings: &[Setting]) -> Self {
        let mut payload = Vec::new();
        for setting in settings {
            let (id, value) = match *setting {
                Setting::MaxConcurrentStreams(streams) => (3_u16, streams),
                Setting::InitialWindowSize(bytes) => (4, bytes),
            };
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        Frame::new(Kind::Settings, 0, 0, payload)
    }

    pub(super) fn go_away(last_stream: u32, code: u32, debug: &str) -> Self {
        let mut payload = last_stream.to_be_bytes().to_vec();
        payload.extend(code.to_be_bytes());
        payload.extend(debug.as_bytes());
        Frame::new(Kind::GoAway, 0, 0, payload)
    }

    /// HEADERS, complete, of `(name, value)` pairs.
    pub(super) fn headers(stream: u32, fields: &[(&str, &str)], end_stream: bool) -> Self {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0); // a literal that is not indexed, with a new name
            for text in [name, value] {
                block.push(u8::try_from(text.len()).expect("scripts write fields shorter than 127 bytes"));
                block.extend(text.as_bytes());
            }
        }
        let flags = END_HEADERS | if end_stream { END_STREAM } else { 0 };
        Frame::new(Kind::Headers, flags, stream, block)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("scripts write small frames");
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.push(self.kind as u8);
        bytes.push(self.flags);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// Reads the next frame of a kind that we know.
    ///
    /// # Cancel safety
    /// None: a frame that was read in part is lost.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
        loop {
            let mut head = [0; 9];
            from.read_exact(&mut head).await?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if length > LARGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame larger than we allow"));
            }
            let mut payload = vec![0; length];
            from.read_exact(&mut payload).await?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            if let Some(kind) = KINDS.get(usize::from(head[3])) {
                return Ok(Frame { kind: *kind, flags: head[4], stream, payload });
            }
        }
    }
}

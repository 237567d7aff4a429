//! One connection as a script sees it: the server's end, with every frame in the script's hand. What a client may
//! expect of any server (SETTINGS and PING acknowledged) is done while a script waits for something; all else is
//! done when the script says so, right or wrong.

use std::io;

use prost::Message;
use svc_proto::greeter::v1::HelloReply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frame::{ACK, END_STREAM, Frame, Kind, Setting};

/// What every client sends first (RFC 9113, section 3.4).
const PREFACE_LENGTH: usize = 24;

/// The head of an ordinary answer.
const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

/// A client's connection, in a script's hand.
#[derive(Debug)]
pub struct Peer {
    io: TcpStream,
    number: usize,
}

impl Peer {
    pub(super) fn new(io: TcpStream, number: usize) -> Self {
        Peer { io, number }
    }

    /// Which connection of the listener this is; the first is 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Reads the client's preface and sends these SETTINGS.
    pub async fn handshake(&mut self, settings: &[Setting]) -> io::Result<()> {
        self.io.read_exact(&mut [0; PREFACE_LENGTH]).await?;
        self.settings(settings).await
    }

    /// Sends SETTINGS, at any time.
    pub async fn settings(&mut self, settings: &[Setting]) -> io::Result<()> {
        self.send(Frame::settings(settings)).await
    }

    /// The next frame of the client's that asks for more than an acknowledgement.
    pub async fn frame(&mut self) -> io::Result<Frame> {
        loop {
            let frame = Frame::read(&mut self.io).await?;
            match frame.kind {
                Kind::Settings | Kind::Ping if frame.flags & ACK != 0 => {}
                Kind::Settings => self.send(Frame::new(Kind::Settings, ACK, 0, [])).await?,
                Kind::Ping => self.send(Frame::new(Kind::Ping, ACK, 0, frame.payload)).await?,
                Kind::WindowUpdate | Kind::Priority => {}
                _ => return Ok(frame),
            }
        }
    }

    /// Waits for the head of the client's next call and gives its stream. Frames of other streams are lost.
    pub async fn head(&mut self) -> io::Result<u32> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == Kind::Headers {
                return Ok(frame.stream);
            }
        }
    }

    /// Waits until the client has said all of its next call and gives its stream.
    pub async fn call(&mut self) -> io::Result<u32> {
        loop {
            let frame = self.frame().await?;
            if frame.ends_stream() {
                return Ok(frame.stream);
            }
        }
    }

    /// Waits until the client resets `stream`, and gives the code.
    pub async fn reset_of(&mut self, stream: u32) -> io::Result<u32> {
        loop {
            let frame = self.frame().await?;
            if let (true, Some(code)) = (frame.stream == stream, frame.error_code()) {
                return Ok(code);
            }
        }
    }

    /// Answers what the client asks for until it goes away.
    pub async fn until_closed(&mut self) -> io::Result<()> {
        loop {
            self.frame().await?;
        }
    }

    /// Answers calls in order, each with a greeting by `instance`, until the client goes away.
    pub async fn greet(&mut self, instance: &str) -> io::Result<()> {
        loop {
            let stream = self.call().await?;
            self.answer(stream, instance).await?;
        }
    }

    /// A whole answer: head, one greeting by `instance`, trailers that say OK.
    pub async fn answer(&mut self, stream: u32, instance: &str) -> io::Result<()> {
        self.answer_head(stream).await?;
        self.data(stream, &greeting(instance)).await?;
        self.headers(stream, &[("grpc-status", "0")], true).await
    }

    /// The head of an ordinary answer, and no more.
    pub async fn answer_head(&mut self, stream: u32) -> io::Result<()> {
        self.headers(stream, &HEAD, false).await
    }

    /// An answer that is head and trailers in one.
    pub async fn trailers_only(&mut self, stream: u32, code: i32, message: &str) -> io::Result<()> {
        let code = code.to_string();
        let fields = [HEAD[0], HEAD[1], ("grpc-status", code.as_str()), ("grpc-message", message)];
        self.headers(stream, &fields, true).await
    }

    /// HEADERS with these fields, whatever they are.
    pub async fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) -> io::Result<()> {
        self.send(Frame::headers(stream, fields, end)).await
    }

    /// DATA that does not end the stream.
    pub async fn data(&mut self, stream: u32, bytes: &[u8]) -> io::Result<()> {
        self.send(Frame::new(Kind::Data, 0, stream, bytes)).await
    }

    /// DATA that does.
    pub async fn last_data(&mut self, stream: u32, bytes: &[u8]) -> io::Result<()> {
        self.send(Frame::new(Kind::Data, END_STREAM, stream, bytes)).await
    }

    /// RST_STREAM.
    pub async fn reset(&mut self, stream: u32, code: u32) -> io::Result<()> {
        self.send(Frame::new(Kind::RstStream, 0, stream, code.to_be_bytes())).await
    }

    /// GOAWAY with whatever last stream; 2^31-1 only announces it.
    pub async fn go_away(&mut self, last_stream: u32, code: u32) -> io::Result<()> {
        self.send(Frame::go_away(last_stream, code, "")).await
    }

    /// GOAWAY with debug data, such as `too_many_pings`.
    pub async fn go_away_with(&mut self, last_stream: u32, code: u32, debug: &str) -> io::Result<()> {
        self.send(Frame::go_away(last_stream, code, debug)).await
    }

    /// Lets the client send that many more bytes, on a stream or (0) on the connection.
    pub async fn window_update(&mut self, stream: u32, bytes: u32) -> io::Result<()> {
        self.send(Frame::new(Kind::WindowUpdate, 0, stream, bytes.to_be_bytes())).await
    }

    /// Bytes that are no frame.
    pub async fn garbage(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await
    }

    async fn send(&mut self, frame: Frame) -> io::Result<()> {
        self.io.write_all(&frame.encode()).await
    }
}

/// One greeting as it goes over the wire: gRPC's five bytes, then the message.
pub(super) fn greeting(instance: &str) -> Vec<u8> {
    let reply = HelloReply { message: "Hello!".into(), instance: instance.into() }.encode_to_vec();
    let length = u32::try_from(reply.len()).expect("a short message");
    let mut bytes = vec![0]; // not compressed
    bytes.extend(length.to_be_bytes());
    bytes.extend(reply);
    bytes
}

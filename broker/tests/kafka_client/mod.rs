//! A Kafka client for tests: one connection, requests and answers by the project's own tables, in whatever version a test wants.
//! Must not know how a broker is started, so that tests of other crates can take it in as well.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]
#![allow(dead_code, reason = "each test program uses its part")]

mod calls;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use floodmark_proto::kafka::header::decode_response_header;
use floodmark_proto::kafka::{ApiKey, Decoder, Encoder, Message, RequestHeader};

#[allow(unused_imports, reason = "each test program uses its part")]
pub(crate) use calls::{FetchOf, Fetched, Produced, batch, batch_of, produce_request, produced, records_in};

/// No answer after this is a failure of the test. Long polls of tests are shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A connection to a broker.
pub(crate) struct Kafka {
    pub(crate) socket: TcpStream,
    encoder: Encoder,
    next_id: i32,
}

/// A request that has been sent and is to be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    key: ApiKey,
    version: i16,
    id: i32,
}

/// An answer, to be read as the message that it is.
#[derive(Debug)]
pub(crate) struct Answer {
    frame: Vec<u8>,
    body_at: usize,
    version: i16,
}

impl Kafka {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Kafka> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        socket.set_write_timeout(Some(ANSWER_WITHIN))?;
        Ok(Kafka { socket, encoder: Encoder::new(), next_id: 0 })
    }

    /// A connection that is given up where nothing comes for a while, as clients of a cluster do.
    pub(crate) fn connect_within(
        address: SocketAddr,
        connect: Duration,
        answer: Duration,
    ) -> io::Result<Kafka> {
        let socket = TcpStream::connect_timeout(&address, connect)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(answer))?;
        socket.set_write_timeout(Some(answer))?;
        Ok(Kafka { socket, encoder: Encoder::new(), next_id: 0 })
    }

    /// The frame of a request, and what its answer will be known by.
    pub(crate) fn frame<'a, Q: Message<'a>>(&mut self, version: i16, request: &Q) -> (Asked, Vec<u8>) {
        let key = key_of::<Q>();
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let (api_key, client_id) = (key.code(), Some("test"));
        let header = RequestHeader { api_key, api_version: version, correlation_id: id, client_id };
        header.start_request(&mut self.encoder);
        request.encode(&mut self.encoder, version);
        (Asked { key, version, id }, self.encoder.finish().unwrap().concat())
    }

    pub(crate) fn send<'a, Q: Message<'a>>(&mut self, version: i16, request: &Q) -> io::Result<Asked> {
        let (asked, frame) = self.frame(version, request);
        self.socket.write_all(&frame)?;
        Ok(asked)
    }

    /// The next answer, which must be that to `asked`.
    pub(crate) fn receive(&mut self, asked: Asked) -> io::Result<Answer> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.socket.read_exact(&mut frame)?;
        let mut decoder = Decoder::new(&frame);
        let id = decode_response_header(&mut decoder, asked.key, asked.version).unwrap();
        assert_eq!(id, asked.id, "answers leave in the order of the requests");
        let body_at = decoder.position();
        Ok(Answer { frame, body_at, version: asked.version })
    }

    pub(crate) fn ask<'a, Q: Message<'a>>(&mut self, version: i16, request: &Q) -> io::Result<Answer> {
        let asked = self.send(version, request)?;
        self.receive(asked)
    }
}

impl Answer {
    /// The answer as a message; all of it, to the last byte.
    pub(crate) fn read<'a, M: Message<'a>>(&'a self) -> M {
        let mut decoder = Decoder::new(&self.frame[self.body_at..]);
        let message = M::decode(&mut decoder, self.version).unwrap();
        decoder.finish().unwrap();
        message
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.frame.len()
    }
}

/// `FetchRequest` belongs to `Fetch`.
fn key_of<'a, Q: Message<'a>>() -> ApiKey {
    let name = Q::NAME.strip_suffix("Request").unwrap();
    (0..200).filter_map(ApiKey::from_code).find(|key| key.name() == name).unwrap()
}

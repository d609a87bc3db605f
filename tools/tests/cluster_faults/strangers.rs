//! What comes to a broker's door for brokers and does not belong there: garbage, calls that are not from a broker of this cluster, brokers
//! with another's id or of another cluster. Each is refused, told once in the log, and nothing changes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use floodmark_proto::kafka::messages::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::faults::Nemesis;
use crate::ground::{tell, wait_until};

/// A broker ends a connection that makes no sense within this time.
const ENDED_WITHIN: Duration = Duration::from_secs(30);
const TOLD_WITHIN: Duration = Duration::from_secs(30);
const REFUSED: &str = "a call between brokers was refused";
const VOTE: &str = "/floodmark.quorum.Quorum/RequestVote";
const FETCH: &str = "/floodmark.replica.Replica/Fetch";

impl Nemesis {
    pub(crate) fn meet_strangers(&mut self) -> Result<(), String> {
        self.meet_garbage()?;
        self.meet_forged_calls()?;
        self.meet_floods()?;
        self.meet_wrong_brokers()
    }

    fn meet_garbage(&mut self) -> Result<(), String> {
        let noise: Vec<u8> = (0..100_000).map(|_| self.random.next_u64() as u8).collect();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let pieces: [(&str, Vec<u8>); 5] = [
            ("noise", noise),
            ("HTTP/1", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
            ("a Kafka request", [&[0, 0, 0, 8, 0, 18, 0, 0, 0, 0, 0, 1][..], &[255; 64]].concat()),
            ("a frame of 16 MiB", [preface, &[255, 255, 255, 0, 0, 0, 0, 0, 1][..], &[0; 4096]].concat()),
            ("headers on no stream", [preface, &[0, 0, 1, 1, 4, 0, 0, 0, 0, 0][..]].concat()),
        ];
        for place in 0..self.brokers.count() {
            let at = self.brokers.ground.places[place].cluster();
            for (what, piece) in &pieces {
                if !is_ended(at, piece) {
                    return Err(format!("broker {} keeps a connection that brought {what}", place + 1));
                }
            }
        }
        tell(self.load.since, "  garbage ended its connections");
        self.await_progress("garbage")
    }

    fn meet_forged_calls(&mut self) -> Result<(), String> {
        let cluster = self.cluster_id()?;
        let other = "AAAAAAAAAAAAAAAAAAAAAA".to_owned();
        let marks = |cluster: &str, to: &str, protocol: &str| {
            [("fm-cluster", cluster), ("fm-from", "2"), ("fm-to", to), ("fm-protocol", protocol)]
                .map(|(name, value)| (name, value.to_owned()))
                .to_vec()
        };
        let cases = [
            ("unmarked", Vec::new(), Code::InvalidArgument),
            ("of an older version", marks(&cluster, "1", "0"), Code::Unimplemented),
            ("of a newer version", marks(&cluster, "1", "2"), Code::Unimplemented),
            ("of another cluster", marks(&other, "1", "1"), Code::FailedPrecondition),
            ("for another broker", marks(&cluster, "3", "1"), Code::FailedPrecondition),
        ];
        let told_before = self.lines_of(0, REFUSED);
        let place = &self.brokers.ground.places[0];
        let (peers, clients) = (place.cluster(), place.grpc());
        for (what, marks, expected) in &cases {
            for path in [VOTE, FETCH, VOTE] {
                let status = call(peers, path, marks)?;
                if status.code() != *expected {
                    return Err(format!("a call {what} to {path} is answered {status:?}"));
                }
            }
        }
        // Well marked, and at the wrong door.
        for path in [VOTE, FETCH] {
            let status = call(clients, path, &marks(&cluster, "1", "1"))?;
            if status.code() != Code::Unimplemented {
                return Err(format!("{path} at the door for clients is answered {status:?}"));
            }
        }
        self.await_progress("forged calls")?;
        // A line of the log is written a moment after the call was answered, and behind those before it.
        let last = "the address has changed hands";
        if !wait_until(TOLD_WITHIN, || self.lines_of(0, last) > 0) {
            return Err(format!("no refused call is told in the log: {last:?} is missing"));
        }
        // Other versions and no marks are refused as one, and the same caller.
        let told = self.lines_of(0, REFUSED) - told_before;
        if told > 4 {
            return Err(format!("15 forged calls are told {told} times in the log"));
        }
        tell(self.load.since, "  forged calls were refused");
        Ok(())
    }

    fn meet_wrong_brokers(&mut self) -> Result<(), String> {
        let spare = self.brokers.count();
        let dir = |name: &str| self.brokers.ground.places[spare].disk.join(name);
        let refused = [
            (spare + 1, dir("other-cluster"), vec!["cluster.id=AAAAAAAAAAAAAAAAAAAAAA"], "cluster"),
            (2, dir("reused"), vec![], "another disk"),
        ];
        for (id, dir, settings, word) in refused {
            let said = self.brokers.start_refused(spare, id, &dir, &settings)?;
            if !said.contains(word) {
                return Err(format!(
                    "a broker with id {id} is refused with other words than {word:?}: {said}"
                ));
            }
        }
        // The disk of a broker is gone, and it comes back with an empty one.
        let (own, aside) = (self.brokers.data_dir(1), self.brokers.ground.places[1].disk.join("aside"));
        self.brokers.kill(&[1]);
        fs::rename(&own, &aside).map_err(|e| e.to_string())?;
        let said = self.brokers.start_refused(1, 2, &own, &[]);
        let _ = fs::remove_dir_all(&own);
        fs::rename(&aside, &own).map_err(|e| e.to_string())?;
        self.brokers.start_all()?;
        if !said?.contains("another disk") {
            return Err("an empty disk under an old id is refused with other words".to_owned());
        }
        tell(self.load.since, "  brokers that do not belong here were refused");
        self.await_in_sync()?;
        self.await_progress("wrong brokers")
    }

    fn cluster_id(&mut self) -> Result<String, String> {
        let at = self.brokers.ground.places[0].kafka();
        let mut kafka = self.load.connect(at).map_err(|e| e.to_string())?;
        let answer = kafka.ask(1, &DescribeClusterRequest::default()).map_err(|e| e.to_string())?;
        Ok(answer.read::<DescribeClusterResponse<'_>>().cluster_id.to_owned())
    }

    fn lines_of(&self, place: usize, text: &str) -> usize {
        fs::read_to_string(self.brokers.log(place)).unwrap().matches(text).count()
    }
}

/// Whether the other side ends a connection that brought this.
fn is_ended(at: SocketAddr, piece: &[u8]) -> bool {
    let mut socket = TcpStream::connect(at).unwrap();
    socket.set_read_timeout(Some(ENDED_WITHIN)).unwrap();
    // It may be ended before all is sent.
    let _ = socket.write_all(piece);
    let mut answer = [0; 4096];
    loop {
        match socket.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => {
                return !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            }
        }
    }
}

/// What a call with an empty message is answered.
pub(crate) fn call(
    at: SocketAddr,
    path: &'static str,
    marks: &[(&'static str, String)],
) -> Result<Status, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{at}")).unwrap().timeout(ENDED_WITHIN);
        let channel = endpoint.connect().await.map_err(|e| format!("{at}: {e}"))?;
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|e| format!("{at}: {e}"))?;
        let mut request = Request::new(());
        for (name, value) in marks {
            request.metadata_mut().insert(*name, AsciiMetadataValue::try_from(value).unwrap());
        }
        let codec = ProstCodec::<(), ()>::default();
        let answer = client.unary(request, PathAndQuery::from_static(path), codec).await;
        Ok(answer.err().unwrap_or_else(|| Status::ok("served")))
    })
}

//! How messages of the services are read and written: as prost does, but whoever sends bytes that are no message of the call is told that,
//! with a reason for programs, and not that the broker failed.

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use super::refused::Refused;

/// What the generated servers use.
pub(super) struct Messages<T, U>(ProstCodec<T, U>);

impl<T, U> Default for Messages<T, U> {
    fn default() -> Messages<T, U> {
        Messages(ProstCodec::default())
    }
}

impl<T, U> Codec for Messages<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Reader<U> {
        Reader(self.0.decoder())
    }
}

/// Reads requests.
pub(super) struct Reader<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // It fails for no other reason.
        self.0.decode(bytes).map_err(|unreadable| {
            let reason = unreadable.message();
            Refused::invalid(format!("what was sent is no message of this call: {reason}")).to_status()
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

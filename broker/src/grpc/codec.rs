//! How messages of the services are read and written: as prost does, but whoever sends bytes that are no message of the call is told that,
//! with a reason for programs, and not that the broker failed; and nothing is made of a request with longer lists than [`lists`] lets pass.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf as _;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::lists::{self, Listed};

/// What the generated servers use.
pub(super) struct Messages<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Messages<T, U> {
    fn default() -> Messages<T, U> {
        Messages(PhantomData)
    }
}

impl<T, U> Codec for Messages<T, U>
where
    T: Message + Send + 'static,
    U: Message + Listed + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Reader<U> {
        Reader(PhantomData)
    }
}

/// Reads requests.
pub(super) struct Reader<U>(PhantomData<U>);

impl<U: Message + Listed + Default> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = bytes.copy_to_bytes(bytes.remaining());
        lists::check(&message, U::FIELDS).map_err(|refused| refused.to_status())?;
        let read = U::decode(message).map_err(|unreadable| lists::no_message(&unreadable).to_status())?;
        Ok(Some(read))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

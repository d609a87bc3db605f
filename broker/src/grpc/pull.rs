//! A reply that is made piece by piece, each only when there is room for it: nothing runs and nothing is held between two pieces but
//! what the next one is made from.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;

type Step<S, T> = Pin<Box<dyn Future<Output = Option<(S, T)>> + Send>>;

/// A stream that asks `next` for one piece after the other.
pub(super) struct Pull<S, T, F> {
    next: F,
    state: Option<S>,
    step: Option<Step<S, T>>,
}

/// Pieces from `next`, which gets back what it gave with the piece before; it ends the stream with `None`.
pub(super) fn pull<S, T, F, Fut>(state: S, next: F) -> Pull<S, T, impl FnMut(S) -> Step<S, T>>
where
    F: Fn(S) -> Fut,
    Fut: Future<Output = Option<(S, T)>> + Send + 'static,
{
    Pull { next: move |state| -> Step<S, T> { Box::pin(next(state)) }, state: Some(state), step: None }
}

impl<S: Unpin, T, F: FnMut(S) -> Step<S, T> + Unpin> Stream for Pull<S, T, F> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        if let Some(state) = this.state.take() {
            this.step = Some((this.next)(state));
        }
        let Some(step) = &mut this.step else { return Poll::Ready(None) };
        let made = ready!(step.as_mut().poll(cx));
        this.step = None;
        Poll::Ready(made.map(|(state, piece)| {
            this.state = Some(state);
            piece
        }))
    }
}

//! Bodies that are copied while they pass. Frames, their order and their errors are the inner body's own.

use super::capture::Capture;
use super::record::Exchange;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

pin_project! {
    /// The request's body, on its way to the handler.
    #[derive(Debug)]
    pub struct ObservedBody<B> {
        #[pin]
        inner: B,
        capture: Option<Arc<Mutex<Capture>>>,
    }
}

impl<B: Body> ObservedBody<B> {
    pub(super) fn new(inner: B, capture: Option<Arc<Mutex<Capture>>>) -> Self {
        if let Some(capture) = &capture {
            capture.lock().ended = inner.is_end_stream();
        }
        ObservedBody { inner, capture }
    }
}

impl<B: Body<Data = Bytes>> Body for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        if let Some(capture) = this.capture {
            let mut capture = capture.lock();
            match &frame {
                Some(Ok(frame)) => capture.pass(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(_)) => {}
                None => capture.ended = true,
            }
            // A reader that knows the length does not ask for the end.
            capture.ended |= !matches!(frame, Some(Err(_))) && this.inner.is_end_stream();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// The response's body, on its way to the client. When it ends, or is dropped, the record is made.
    #[derive(Debug)]
    pub struct LoggedBody<B> {
        #[pin]
        inner: B,
        exchange: Option<Exchange>,
        // The whole length, if it was known at the start: a writer that knows it may stop there.
        length: Option<u64>,
    }
}

impl<B: Body> LoggedBody<B> {
    pub(super) fn new(inner: B, mut exchange: Option<Exchange>) -> Self {
        let length = inner.size_hint().exact();
        if let Some(exchange) = &mut exchange {
            let ended = inner.is_end_stream() || exchange.is_head();
            if let Some(response) = &mut exchange.response {
                response.ended = ended;
            }
        }
        LoggedBody { inner, exchange, length }
    }
}

impl<B: Body<Data = Bytes>> Body for LoggedBody<B>
where
    B::Error: Display,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        let Some(exchange) = this.exchange else { return Poll::Ready(frame) };
        if let Some(response) = &mut exchange.response {
            match &frame {
                Some(Ok(frame)) => response.pass(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => exchange.error = Some(format!("the response's body failed: {error}")),
                None => response.ended = true,
            }
            let whole = this.length.is_some_and(|length| response.passed() >= length);
            response.ended |= exchange.error.is_none() && (whole || this.inner.is_end_stream());
        }
        if frame.is_none() {
            // Logged now: who holds the body may hold it for long.
            *this.exchange = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

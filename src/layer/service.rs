//! The service around the handler.

use super::LayerConfig;
use super::body::{LoggedBody, ObservedBody};
use super::record::Exchange;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use std::fmt::{self, Display};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A service whose chosen requests are logged; [`PredictionLayer`](super::PredictionLayer) makes it.
#[derive(Clone)]
pub struct PredictionService<S> {
    pub(super) inner: S,
    pub(super) config: Arc<LayerConfig>,
}

impl<S: fmt::Debug> fmt::Debug for PredictionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictionService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, Q, R> tower_service::Service<Request<Q>> for PredictionService<S>
where
    S: tower_service::Service<Request<ObservedBody<Q>>, Response = Response<R>>,
    S::Error: Display,
    Q: Body<Data = Bytes>,
    R: Body<Data = Bytes>,
    R::Error: Display,
{
    type Response = Response<LoggedBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let exchange = self.config.chooses(&parts).then(|| Exchange::start(&self.config, &parts));
        let body = ObservedBody::new(body, exchange.as_ref().map(|exchange| Arc::clone(&exchange.request)));
        ResponseFuture { inner: self.inner.call(Request::from_parts(parts, body)), exchange }
    }
}

pin_project! {
    /// The response that is to come. Dropped before it is there, the request is logged with that error.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        exchange: Option<Exchange>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Display,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<LoggedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let mut exchange = this.exchange.take();
        Poll::Ready(match result {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                if let Some(exchange) = &mut exchange {
                    exchange.answered(parts.status, &parts.headers);
                }
                Ok(Response::from_parts(parts, LoggedBody::new(body, exchange)))
            }
            Err(error) => {
                if let Some(exchange) = &mut exchange {
                    exchange.error = Some(format!("the service failed: {error}"));
                }
                Err(error)
            }
        })
    }
}

//! `GET /healthz`: the process answers.

pub(crate) async fn get() -> &'static str {
    "ok\n"
}

//! Runs the routes of a configuration file with mq-bridge, until it is stopped: `mq-bridge-peer routes.json`.

use anyhow::Context as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let file = std::env::args().nth(1).context("expected the file of the routes")?;
    mq_bridge::deploy_file(&file).await?;
    std::future::pending().await
}

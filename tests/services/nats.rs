//! NATS: what it has acknowledged outlives a kill; paused, it acknowledges nothing.

use crate::support::nats::Nats;
use async_nats::jetstream::{self, Context, stream};
use std::time::Duration;

async fn context(nats: &Nats) -> Context {
    jetstream::new(async_nats::connect(nats.url()).await.unwrap())
}

/// Publishes and waits for the acknowledgement, which has the message's sequence number in its stream.
async fn publish(context: &Context, payload: &'static str) -> Result<u64, Box<dyn std::error::Error>> {
    Ok(context.publish("predictions.wine", payload.into()).await?.await?.sequence)
}

#[tokio::test]
async fn nats_keeps_what_it_acknowledged_when_it_is_killed() {
    let mut nats = Nats::start();
    let mut client = context(&nats).await;
    let subjects = vec!["predictions.>".to_owned()];
    let settings = stream::Config { name: "PREDICTIONS".into(), subjects, ..stream::Config::default() };
    client.create_stream(settings).await.unwrap();
    assert_eq!(publish(&client, "kept").await.unwrap(), 1);

    nats.pause();
    client.set_timeout(Duration::from_millis(500));
    publish(&client, "late").await.unwrap_err();
    nats.resume();
    // The pause held it up, and it arrives before what follows on the same connection.
    client.set_timeout(Duration::from_secs(30));
    assert_eq!(publish(&client, "after").await.unwrap(), 3);

    nats.kill();
    client.set_timeout(Duration::from_millis(500));
    publish(&client, "into the void").await.unwrap_err();
    nats.restart();
    let stream = context(&nats).await.get_stream("PREDICTIONS").await.unwrap();
    for (sequence, payload) in [(1, "kept"), (2, "late"), (3, "after")] {
        assert_eq!(stream.get_raw_message(sequence).await.unwrap().payload, payload);
    }
}

#[tokio::test]
async fn nats_asks_for_the_token_of_its_configuration() {
    let nats = Nats::start_with("authorization { token: \"secret\" }");
    async_nats::connect(nats.url()).await.unwrap_err();
    async_nats::ConnectOptions::with_token("secret".into()).connect(nats.url()).await.unwrap();
}

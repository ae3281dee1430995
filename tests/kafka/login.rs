//! Ways to log in that have their details in `[kafka.properties]`; for the others see `outage.rs`.

use super::*;

/// librdkafka's own way to a token without a server: its details are properties, which pass through.
#[test]
fn oauthbearer_is_passed_through() {
    let login =
        "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"predlog\";";
    let properties = [("sasl.enabled.mechanisms", "OAUTHBEARER"), ("listener.name.sasl.oauthbearer.sasl.jaas.config", login)];
    let kafka = Kafka::start(&Options { sasl: true, properties: &properties, ..Options::default() });
    kafka.create_topic("predictions", 1);
    let dir = tempfile::tempdir().unwrap();
    let toml = |principal: &str| {
        let (brokers, ca) = (kafka.sasl(), kafka.certificates().ca());
        format!(
            "mode = \"kafka\"\n[ledger]\nenabled = false\n[kafka]\nbrokers = \"{brokers}\"\n[kafka.fallback]\ndir = {:?}\n\
             [kafka.tls]\nenabled = true\nca_file = {ca:?}\n[kafka.sasl]\nmechanism = \"OAUTHBEARER\"\n\
             [kafka.properties]\n\"enable.sasl.oauthbearer.unsecure.jwt\" = true\n\"sasl.oauthbearer.config\" = \"{principal}\"",
            dir.path()
        )
    };
    let (ok, said) = check(dir.path(), &toml("principal=predlog"));
    assert!(ok && said.contains("security:  OAUTHBEARER over TLS"), "{said}");
    log_all(&Config::from_toml(&toml("principal=predlog")).unwrap(), &["wine"], 100);
    assert_eq!(read_topic(&kafka.bootstrap(), "predictions", 100).len(), 100);
    let (ok, said) = check(dir.path(), &toml("nonsense"));
    assert!(!ok && said.contains("Failed to acquire SASL OAUTHBEARER token"), "{said}");
}

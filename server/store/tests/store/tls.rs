//! TLS to Postgres: each sslmode believes what it should, and no more.

use patchbay_store::{DatabaseUrl, Store, StoreError, StoreSettings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::fixtures::{Fresh, on_own_cluster};

/// A root that signs certificates.
fn root() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(parameters, key).expect("a root")
}

/// Whether a store of this URL is open with TLS, or why it does not open.
async fn opened(fresh: &Fresh, parameters: &str) -> Result<bool, String> {
    let url = format!("{}?application_name=tls&{parameters}", fresh.url());
    let settings = StoreSettings {
        url: DatabaseUrl::parse(&url).expect("a URL"),
        ..fresh.beside()
    };
    match Store::open(settings).await {
        Ok(store) => {
            store.health().await.expect("healthy");
            let secured = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                 WHERE application_name = 'tls' AND ssl";
            let secured = fresh.number(secured).await > 0;
            store.close().await;
            drop(store);
            let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tls'";
            crate::fixtures::eventually("it is closed", async || fresh.number(left).await == 0)
                .await;
            Ok(secured)
        }
        Err(StoreError::CannotOpen(message)) => Err(message),
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn each_mode_believes_what_it_should() {
    on_own_cluster(async |fresh, cluster| {
        fresh.store.close().await;
        let (ours, foreign) = (root(), root());
        let ours_file = cluster.file("ours.pem", &ours.pem());
        let foreign_file = cluster.file("foreign.pem", &foreign.pem());
        let trusting = |mode: &str, file: &std::path::Path| {
            let path = file.display().to_string().replace('/', "%2F");
            format!("sslmode={mode}&sslrootcert={path}")
        };
        assert_eq!(
            opened(&fresh, "sslmode=prefer").await,
            Ok(false),
            "it has none"
        );

        // For the name in the URL, and then for another.
        for (name, is_named) in [("127.0.0.1", true), ("elsewhere.example", false)] {
            let key = KeyPair::generate().expect("a key");
            let parameters = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
            let certificate = parameters.signed_by(&key, &ours).expect("a certificate");
            let certificate = cluster.file("server.crt", &certificate.pem());
            let key = cluster.file("server.key", &key.serialize_pem());
            cluster.configure(&format!(
                "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'",
                certificate.display(),
                key.display()
            ));
            cluster.restart();
            assert_eq!(opened(&fresh, "sslmode=disable").await, Ok(false));
            for mode in ["prefer", "require"] {
                let parameters = format!("sslmode={mode}");
                assert_eq!(opened(&fresh, &parameters).await, Ok(true), "{mode}");
            }
            for mode in ["require", "verify-ca"] {
                let known = opened(&fresh, &trusting(mode, &ours_file)).await;
                assert_eq!(known, Ok(true), "{mode}");
            }
            let full = opened(&fresh, &trusting("verify-full", &ours_file)).await;
            assert_eq!(full.is_ok(), is_named, "{full:?}");
            for refused in [
                trusting("verify-ca", &foreign_file),
                trusting("verify-full", &foreign_file),
                // Nor has the system heard of the root.
                "sslmode=verify-full".to_owned(),
            ] {
                let message = opened(&fresh, &refused).await.expect_err(&refused);
                assert!(
                    message.contains("certificate") && message.contains("sslrootcert"),
                    "{message}"
                );
            }
        }
    });
}

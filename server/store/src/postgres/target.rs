//! Where the database is: what the URL says, connections to it, and why there is none.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fault::{is_crowded, words};
use super::tls::{Trust, connector};
use crate::error::StoreError;
use crate::settings::StoreSettings;

/// The oldest Postgres whose functions we use.
const OLDEST: i32 = 13;

/// A database and how it is reached. Cheap to clone.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: Option<MakeRustlsConnect>,
    /// The URL without user, password and parameters.
    pub(super) shown: String,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoLink {
    /// The system or the server says why.
    Refused(Error),
    /// Nobody answers.
    Silent(Duration),
}

impl NoLink {
    /// With all its causes, for the operator.
    pub(super) fn words(&self) -> String {
        match self {
            NoLink::Refused(error) => words(error),
            NoLink::Silent(limit) => format!("no answer within {} s", limit.as_secs_f32()),
        }
    }
}

/// A connection that nobody drives yet: its messages must be polled for anything to happen.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) messages: BoxStream<'static, Result<AsyncMessage, Error>>,
}

impl Target {
    /// Reads a URL as libpq does, with `sslmode` and `sslrootcert`, which the driver does not know in full.
    pub(super) fn parse(url: &str, settings: &StoreSettings) -> Result<Target, StoreError> {
        let shown = settings.url.to_string();
        let wrong =
            |why: String| StoreError::CannotOpen(format!("the database URL {shown} … {why}"));
        let (place, parameters) = url.split_once('?').unwrap_or((url, ""));
        let mut mode = "prefer".to_owned();
        let mut root = None;
        let mut others = Vec::new();
        for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match key {
                "sslmode" => mode = value.to_owned(),
                "sslrootcert" => root = Some(PathBuf::from(decoded(value).map_err(wrong)?)),
                _ => others.push(parameter),
            }
        }
        let mut config = Config::from_str(&format!("{place}?{}", others.join("&")))
            .map_err(|error| wrong(format!("cannot be read: {}", words(&error))))?;
        let (ssl, trust) = match (mode.as_str(), &root) {
            ("disable", _) => (SslMode::Disable, None),
            ("prefer" | "allow", _) => (SslMode::Prefer, Some(Trust::Anybody)),
            ("require", None) => (SslMode::Require, Some(Trust::Anybody)),
            // As libpq has it: who names roots wants them asked.
            ("require" | "verify-ca", _) => (SslMode::Require, Some(Trust::Chain)),
            ("verify-full", _) => (SslMode::Require, Some(Trust::ChainAndName)),
            (other, _) => {
                return Err(wrong(format!(
                    "has the sslmode {other:?}; write disable, prefer, require, verify-ca or verify-full"
                )));
            }
        };
        config.ssl_mode(ssl);
        config.connect_timeout(settings.connect_timeout);
        config.keepalives_idle(Duration::from_secs(15));
        config.keepalives_interval(Duration::from_secs(5));
        config.keepalives_retries(3);
        if config.get_application_name().is_none() {
            let name = match &settings.server_name {
                Some(name) => format!("patchbay {name}"),
                None => format!("patchbay (process {})", std::process::id()),
            };
            config.application_name(name);
        }
        let tls = match trust {
            None => None,
            Some(trust) => Some(connector(trust, root.as_deref()).map_err(wrong)?),
        };
        Ok(Target { config, tls, shown })
    }

    /// How long connecting once may take: of several hosts each is given its time, so that one that does not answer
    /// leaves some to the next.
    pub(super) fn patience(&self) -> Duration {
        let each = self.config.get_connect_timeout().copied();
        let hosts = self
            .config
            .get_hosts()
            .len()
            .max(self.config.get_hostaddrs().len());
        each.unwrap_or(Duration::from_secs(5)) * u32::try_from(hosts).unwrap_or(1).max(1)
    }

    /// Connects once.
    pub(super) async fn link(&self) -> Result<Link, NoLink> {
        let limit = self.patience();
        // The driver's own limit ends where the server has to say something.
        let linked = tokio::time::timeout(limit, async {
            match &self.tls {
                None => link(&self.config, NoTls).await,
                Some(tls) => link(&self.config, tls.clone()).await,
            }
        });
        match linked.await {
            Ok(linked) => linked.map_err(NoLink::Refused),
            Err(_) => Err(NoLink::Silent(limit)),
        }
    }

    /// Connects once, with a task that drives the connection for as long as the client lives.
    async fn connect(&self) -> Result<Client, NoLink> {
        let Link {
            client,
            mut messages,
        } = self.link().await?;
        tokio::spawn(async move { while let Some(Ok(_)) = messages.next().await {} });
        Ok(client)
    }

    /// Connects, trying again for as long as the settings say where it may help.
    pub(super) async fn connect_patiently(&self, patience: Duration) -> Result<Client, StoreError> {
        let until = tokio::time::Instant::now() + patience;
        let mut pause = Duration::from_millis(100);
        loop {
            let error = match self.connect().await {
                Ok(client) => match look_at(&client).await {
                    Ok((version, encoding)) => {
                        self.check_server(version, &encoding)?;
                        return Ok(client);
                    }
                    Err(error) => NoLink::Refused(error),
                },
                Err(error) => error,
            };
            let refusal = refusal(&error);
            if refusal.is_some() || tokio::time::Instant::now() + pause > until {
                let remedy = refusal.unwrap_or(
                    "check that Postgres runs there, that it can be reached from here, and that the URL is right",
                );
                return Err(StoreError::CannotOpen(format!(
                    "cannot open the database {}: {}; {remedy}",
                    self.shown,
                    error.words()
                )));
            }
            tracing::warn!(
                database = self.shown,
                error = error.words(),
                "the database cannot be reached yet"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Checks what can only be known of the server itself.
    fn check_server(&self, version: i32, encoding: &str) -> Result<(), StoreError> {
        let cannot =
            |why: String| StoreError::CannotOpen(format!("the database {} {why}", self.shown));
        if version < OLDEST {
            return Err(cannot(format!(
                "is a Postgres {version}; Patchbay needs {OLDEST} or a newer one"
            )));
        }
        if encoding != "UTF8" {
            return Err(cannot(format!(
                "has the encoding {encoding}; create it with the encoding UTF8"
            )));
        }
        Ok(())
    }
}

/// The version of the server, and the encoding of the database.
async fn look_at(client: &Client) -> Result<(i32, String), Error> {
    const SQL: &str = "SELECT current_setting('server_version_num')::integer / 10000, current_setting('server_encoding')";
    let row = client.query_one(SQL, &[]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

async fn link<T>(config: &Config, tls: T) -> Result<Link, Error>
where
    T: MakeTlsConnect<Socket> + Send,
    T::Stream: Send + 'static,
{
    let (client, mut connection) = config.connect(tls).await?;
    let messages = stream::poll_fn(move |context| connection.poll_message(context)).boxed();
    Ok(Link { client, messages })
}

/// What an operator has to change before another try can succeed; none when it may succeed by itself.
fn refusal(error: &NoLink) -> Option<&'static str> {
    let NoLink::Refused(error) = error else {
        return None;
    };
    let Some(code) = error.code() else {
        let words = words(error);
        let tls = words.contains("TLS") || words.contains("certificate");
        return tls.then_some(
            "check the server's certificate, and `sslmode` and `sslrootcert` in the URL",
        );
    };
    match code.code() {
        "28P01" | "28000" => {
            Some("check the user and the password in the URL, and the server's pg_hba.conf")
        }
        "3D000" => Some("create the database first"),
        "42501" => Some("give the user the right to connect to it"),
        _ => None,
    }
}

/// Why there is no connection while the server runs.
pub(super) fn away(error: &Error) -> StoreError {
    let remedy = match is_crowded(error) {
        true => "; raise its max_connections, or lower the size of the servers' pools",
        false => "",
    };
    StoreError::Away(format!("{}{remedy}", words(error)))
}

/// A value of a parameter, with `%2F` and the like resolved.
fn decoded(value: &str) -> Result<String, String> {
    let bad = || "has a parameter that is not percent-encoded as it should be".to_owned();
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(bad)?;
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::DatabaseUrl;

    fn parse(url: &str) -> Result<Target, StoreError> {
        let url = DatabaseUrl::parse(url).expect("a URL");
        let DatabaseUrl::Postgres(text) = &url else {
            panic!("{url}")
        };
        Target::parse(text, &StoreSettings::new(url.clone()))
    }

    #[test]
    fn a_url_says_how_much_is_trusted() {
        for (parameters, ssl, tls) in [
            ("", SslMode::Prefer, true),
            ("?sslmode=disable", SslMode::Disable, false),
            (
                "?application_name=x&sslmode=require",
                SslMode::Require,
                true,
            ),
        ] {
            let target = parse(&format!("postgres://me:hush@host:5433/db{parameters}"));
            let target = target.unwrap_or_else(|error| panic!("{parameters}: {error}"));
            assert_eq!(target.config.get_ssl_mode(), ssl, "{parameters}");
            assert_eq!(target.tls.is_some(), tls, "{parameters}");
            assert_eq!(target.shown, "postgres://host:5433/db");
        }
        let named = parse("postgres://host/db?application_name=x").expect("a target");
        assert_eq!(named.config.get_application_name(), Some("x"));
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for wrong in [
            "postgres://me:hush@host/db?sslmode=sometimes",
            "postgres://me:hush@host/db?sslmode=verify-full&sslrootcert=%2Fnowhere%2Froot.pem",
            "postgres://me:hush@host/db?sslrootcert=%2",
            "postgres://me:hush@host:port/db",
            "postgres://me:hush@host/db?nonsense=1",
        ] {
            let error = parse(wrong).err().expect(wrong).to_string();
            assert!(
                error.contains("postgres://host") && !error.contains("hush"),
                "{error}"
            );
        }
    }
}

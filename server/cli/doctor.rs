//! `patchbay doctor`: the guide's chapter on troubleshooting, run on this installation.
//!
//! Nothing is changed: the database is looked at and read, plugins are loaded over a database of its own, and a hidden file
//! that is made in a plugin path, to see whether anybody tells of it, is gone at once.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use patchbay_registry::diagnosis::{Events, Steps, try_events};
use patchbay_registry::packages::Packages;
use patchbay_registry::{Registry, overlooked};
use patchbay_store::{DatabaseUrl, Inspection, Store, StoreError};
use serde::Serialize;

use super::plugin::load_aside;
use super::serve::http_settings;
use super::{Common, block_on, say, say_json};
use crate::embedded;
use crate::settings::Settings;

/// The version of the document that `--json` prints. Keys are added to it; one that goes, or means something else, makes a
/// new version.
const FORMAT: u32 = 1;

/// The plugin path of the default settings, which need not be there.
const DEFAULT_PATH: &str = "lua-plugins";

/// How long a running server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Say what is wrong with this installation, and what to do: the guide's troubleshooting, run here
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// It works, and may not be what is meant.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that was found.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    state: State,
    message: String,
    /// What to do.
    help: Option<String>,
}

/// One paragraph of the chapter.
#[derive(Debug, Serialize)]
struct Check {
    /// Its title there.
    title: &'static str,
    state: State,
    findings: Vec<Finding>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    format: u32,
    good: bool,
    checks: Vec<Check>,
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, message: impl Into<String>) {
        self.add(State::Ok, message, None);
    }

    fn warn(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.add(State::Warning, message, Some(help.into()));
    }

    fn problem(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.add(State::Problem, message, Some(help.into()));
    }

    fn add(&mut self, state: State, message: impl Into<String>, help: Option<String>) {
        self.0.push(Finding {
            state,
            message: message.into(),
            help,
        });
    }

    fn into_check(self, title: &'static str) -> Check {
        Check {
            title,
            state: self
                .0
                .iter()
                .map(|finding| finding.state)
                .max()
                .unwrap_or(State::Ok),
            findings: self.0,
        }
    }
}

/// What the checks look at.
struct Patient {
    settings: Settings,
    /// The plugins, loaded over a database of its own.
    registry: Registry,
    /// The database itself, where it is there and of the version that this program knows.
    store: Option<Store>,
    inspection: Result<Inspection, StoreError>,
}

impl Doctor {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let mut checks = Vec::new();
        let mut found = Findings::default();
        let settings = read_settings(common, &mut found);
        checks.push(found.into_check("The settings"));
        if let Some(settings) = settings {
            checks.extend(block_on(examine(settings))?);
        }
        let good = checks.iter().all(|check| check.state != State::Problem);
        if self.json {
            let document = Document {
                format: FORMAT,
                good,
                checks,
            };
            say_json(&document)?;
        } else {
            print(&checks);
        }
        Ok(match good {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

fn print(checks: &[Check]) {
    let word = |state| match state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Problem => "PROBLEM",
    };
    for check in checks {
        say(format_args!("{:<8} {}", word(check.state), check.title));
        for finding in &check.findings {
            let mark = match finding.state {
                State::Ok => " ",
                State::Warning => "?",
                State::Problem => "!",
            };
            say(format_args!("       {mark} {}", finding.message));
            if let Some(help) = &finding.help {
                say(format_args!("         what to do: {help}"));
            }
        }
    }
    let count = |state| {
        let all = checks.iter().flat_map(|check| &check.findings);
        all.filter(|finding| finding.state == state).count()
    };
    say(format_args!(
        "{} problems, {} warnings",
        count(State::Problem),
        count(State::Warning)
    ));
}

/// Each paragraph of the chapter but the first, in its order.
async fn examine(settings: Settings) -> anyhow::Result<Vec<Check>> {
    let store_settings = settings.store(false)?;
    let inspection = store_settings.url.inspect(&store_settings).await;
    let current = inspection
        .as_ref()
        .is_ok_and(|found| found.exists && found.schema == found.known);
    let store = match current {
        // Of the version that it has, so that opening it changes nothing.
        true => Store::open(store_settings).await.ok(),
        false => None,
    };
    let (registry, _folder) = load_aside(&settings).await?;
    let patient = Patient {
        settings,
        registry,
        store,
        inspection,
    };
    let checks = vec![
        patient.database().into_check("The database"),
        patient.discovery().into_check("A plugin is not discovered"),
        patient
            .plugins()
            .await
            .into_check("An error in the sandbox"),
        patient.migrations().await.into_check("Migration issues"),
        patient.forms().await.into_check("A form is not configured"),
        patient.packages().into_check("A package is refused"),
        patient.events().await.into_check("Changes are not noticed"),
        patient.door().into_check("Nobody gets in, or everybody"),
        patient.server().await.into_check("The server is not ready"),
    ];
    if let Some(store) = &patient.store {
        store.close().await;
    }
    Ok(checks)
}

fn read_settings(common: &Common, found: &mut Findings) -> Option<Settings> {
    let help = "mend it; config/patchbay.toml has every setting, its default and what it means";
    let settings = match common.settings(None, false) {
        Ok(settings) => settings,
        Err(error) => {
            found.problem(format!("the settings cannot be used: {error:#}"), help);
            return None;
        }
    };
    match &common.config {
        Some(path) => found.ok(format!("the settings file {} is read", path.display())),
        None => found.ok("no settings file is named (--config, PATCHBAY_CONFIG)"),
    }
    match Settings::origins(common.config.as_deref(), &common.flags(None, false)) {
        Ok(origins) if origins.is_empty() => found.ok("every setting has its default"),
        Ok(origins) => {
            for origin in origins {
                let (key, value, source) = (origin.key, origin.value, origin.source);
                found.ok(format!("{key} = {value}, from {source}"));
            }
        }
        Err(error) => found.problem(format!("{error:#}"), help),
    }
    let usable = settings
        .store(false)
        .map(|_| ())
        .and_then(|()| embedded::catalogue(settings.catalogue.as_deref()).map(|_| ()));
    if let Err(error) = usable {
        found.problem(format!("{error:#}"), help);
        return None;
    }
    Some(settings)
}

impl Patient {
    fn database(&self) -> Findings {
        let mut found = Findings::default();
        let Ok(url) = DatabaseUrl::parse(&self.settings.database_url) else {
            return found;
        };
        let inspection = match &self.inspection {
            Ok(inspection) => inspection,
            Err(error @ StoreError::NewerSchema { .. }) => {
                found.problem(
                    error.to_string(),
                    "run the Patchbay that made it, or restore a backup",
                );
                return found;
            }
            Err(error) => {
                found.problem(
                    format!("{url} cannot be reached: {error}"),
                    "see that it runs, and that PATCHBAY_DATABASE_URL has the right address, user and password",
                );
                return found;
            }
        };
        match (inspection.exists, inspection.schema) {
            (false, _) => found.ok(format!("{url} is not there yet; a server makes it")),
            (true, schema) if schema == inspection.known => {
                found.ok(format!("{url} has the core schema {schema}, which is the newest known here"));
            }
            (true, 0) => found.ok(format!("{url} is empty; a server makes its tables")),
            (true, schema) => found.warn(
                format!(
                    "{url} has the core schema {schema}, and this Patchbay brings it to {} when a server starts",
                    inspection.known
                ),
                "make a backup before: an older Patchbay refuses it afterwards",
            ),
        }
        if let Some(reason) = &inspection.unwritable {
            found.problem(
                format!("{url} cannot be written: {reason}"),
                "give the server's user the right to write the file and its folder, or end what holds it",
            );
        }
        if let Some(process) = &inspection.served_by {
            found.ok(format!(
                "a server has it open (process {process}); a second one is refused"
            ));
        }
        if inspection.exists && self.store.is_none() && inspection.schema == inspection.known {
            found.problem(
                format!("{url} is there and cannot be opened"),
                "start a server, which says why",
            );
        }
        found
    }

    fn discovery(&self) -> Findings {
        let mut found = Findings::default();
        for path in &self.settings.plugin_paths {
            let shown = path.display();
            match overlooked(path) {
                Ok(all) => {
                    found.ok(format!("the plugin path {shown} is read"));
                    for one in all {
                        let place = one.path.display();
                        found.warn(format!("{place} is not discovered: {}", one.reason), one.help);
                    }
                }
                Err(_) if !path.exists() && *path == Path::new(DEFAULT_PATH) => found.ok(format!(
                    "the plugin path {shown} is not there; a server notices it when it appears"
                )),
                Err(_) if !path.exists() => found.warn(
                    format!("the plugin path {shown} is not there"),
                    "make it, or name the right one in PATCHBAY_PLUGIN_PATHS; relative paths start from the working folder",
                ),
                Err(error) => found.problem(
                    format!("the plugin path {shown} cannot be read: {error}"),
                    "give the server's user the right to read it",
                ),
            }
        }
        let selection = self.settings.registry().selection;
        let off = self.registry.plugins_off(&selection);
        let ships = off
            .iter()
            .filter(|one| one.ships)
            .map(|one| one.plugin.as_str());
        let ships: Vec<&str> = ships.collect();
        if !ships.is_empty() {
            found.ok(format!(
                "off, as they ship: {} (ENABLED_PLUGINS turns them on)",
                ships.join(", ")
            ));
        }
        for one in off.iter().filter(|one| !one.ships) {
            found.warn(
                format!("{} from {} is off", one.plugin, one.source),
                one.reason.clone(),
            );
        }
        found
    }

    async fn plugins(&self) -> Findings {
        let mut found = Findings::default();
        let statuses = self.registry.statuses().await;
        let serving = statuses
            .plugins
            .iter()
            .filter(|status| status.version.is_some());
        found.ok(format!("{} plugins load and serve", serving.count()));
        for status in &statuses.plugins {
            if let Some(error) = &status.last_error {
                found.problem(
                    format!("{}: {}", status.source, error.message),
                    format!("`patchbay plugin check {}` shows all of it", status.source),
                );
            }
            for warning in &status.warnings {
                let name = status.plugin.as_deref().unwrap_or(&status.source);
                found.warn(
                    format!("{name} from {}: {warning}", status.source),
                    "rename one of the two, or leave it if that is meant",
                );
            }
        }
        for problem in &statuses.problems {
            found.problem(problem.clone(), "mend the setting, or bring what it names");
        }
        found
    }

    async fn migrations(&self) -> Findings {
        let mut found = Findings::default();
        let Some(store) = &self.store else {
            found.ok("there is no database yet that steps could wait for");
            return found;
        };
        let promises = self.registry.broken_promises(store).await;
        for (plugin, reason) in promises.unwrap_or_default() {
            let message = format!("{plugin}: {reason}");
            match self.settings.strict_versions {
                true => found.problem(
                    message,
                    format!(
                        "a server shows what is stored and writes nothing, because strict_versions is on; change the number, or \
                         accept it with `patchbay plugin migrate {plugin} --force`"
                    ),
                ),
                false => found.warn(message, "give the next version a number that says it"),
            }
        }
        match self.registry.steps_for(store).await {
            Err(error) => found.problem(
                format!("the migration histories cannot be read: {error}"),
                "see what is said of the database",
            ),
            Ok(all) if all.is_empty() => found.ok("every migration of an active plugin is applied"),
            Ok(all) => {
                for (plugin, steps) in all {
                    match steps {
                        Steps::Pending(ids) => found.ok(format!(
                            "{plugin}: {} runs by itself when a server loads the plugin",
                            ids.join(", ")
                        )),
                        Steps::Waiting(ids) => found.warn(
                            format!("{plugin}: {} waits, because it does more than add", ids.join(", ")),
                            format!(
                                "look at it with `patchbay plugin migrate {plugin} --sql`, then `patchbay plugin migrate {plugin}`"
                            ),
                        ),
                        Steps::Held(ids, held) => found.warn(
                            format!("{plugin}: {held}, so {} does not run", ids.join(", ")),
                            format!(
                                "put back the version that the table is for, or run `patchbay plugin migrate {plugin}`, which goes on"
                            ),
                        ),
                        Steps::Unfit(reason) => found.problem(
                            format!("{plugin}: {reason}"),
                            "restore the migration that was applied, and write the next one",
                        ),
                    }
                }
            }
        }
        found
    }

    async fn forms(&self) -> Findings {
        let mut found = Findings::default();
        let catalogue = match &self.store {
            Some(store) => store.catalogue(),
            None => self.registry.catalogue(),
        };
        let lacking = self.registry.unconfigured(catalogue).await;
        if lacking.is_empty() {
            found.ok("the catalogue has what every form needs");
        }
        for (plugin, key) in lacking {
            found.warn(
                format!("the form of {plugin} is not configured: the catalogue has no service \"{key}\" with options"),
                "add it over REST or with `patchbay catalogue apply FILE`; some plugins bring a `catalogue.toml`",
            );
        }
        found
    }

    fn packages(&self) -> Findings {
        let mut found = Findings::default();
        let packages = Packages::at(self.settings.packages.clone());
        let verified = match packages.verify(None) {
            Ok(verified) => verified,
            Err(error) => {
                found.problem(
                    error.to_string(),
                    "restore plugins.lock from a backup, or install the packages again",
                );
                return found;
            }
        };
        for package in &verified {
            let (name, version) = (&package.name, &package.version);
            match &package.changed {
                Some(changed) => found.problem(
                    format!("the package {name} {version} is not what was installed: {changed}"),
                    format!("install it again, or `patchbay plugin rollback {name}`"),
                ),
                None => found.ok(format!(
                    "the package {name} {version} is as it was installed"
                )),
            }
        }
        for stray in packages.strays() {
            found.warn(stray, "install it, or remove it");
        }
        if verified.is_empty() {
            found.ok("no packages are installed");
        }
        found
    }

    async fn events(&self) -> Findings {
        let mut found = Findings::default();
        if self.settings.poll_ms > 0 {
            found.ok(format!(
                "plugin paths are looked at every {} ms, whatever the file system tells",
                self.settings.poll_ms
            ));
            return found;
        }
        let help = "set PATCHBAY_POLL_MS=1000, so that they are looked at every second";
        for path in &self.settings.plugin_paths {
            let folder = match path.is_dir() {
                true => path.as_path(),
                false => path.parent().unwrap_or(Path::new(".")),
            };
            if !folder.is_dir() {
                continue;
            }
            let shown = folder.display();
            if let Some(kind) = remote_kind(folder) {
                found.warn(
                    format!(
                        "{shown} lies on {kind}, which does not tell of changes that others make"
                    ),
                    help,
                );
                continue;
            }
            match try_events(folder).await {
                Events::Told => found.ok(format!("changes in {shown} are told")),
                Events::Silent => {
                    found.problem(
                        format!("a change was made in {shown}, and nothing told of it"),
                        help,
                    );
                }
                Events::Untried(reason) => found.warn(
                    format!("whether changes in {shown} are told could not be tried: {reason}"),
                    format!("if a change is not noticed, {help}"),
                ),
            }
        }
        found
    }

    fn door(&self) -> Findings {
        let mut found = Findings::default();
        let settings = &self.settings;
        let listen = settings.listen;
        match http_settings(settings) {
            Ok(http) => match patchbay_http::may_listen(&http, listen) {
                Ok(()) => {}
                Err(refused) => found.problem(
                    refused.to_string(),
                    "set PATCHBAY_API_TOKEN, or listen on 127.0.0.1 only",
                ),
            },
            Err(error) => found.problem(format!("{error:#}"), "mend the setting"),
        }
        let open = settings.api_token.is_none();
        match (open, listen.ip().is_loopback()) {
            (true, true) => found.ok(format!(
                "{listen} is reached from this machine only, and no token is asked for"
            )),
            (true, false) if settings.insecure => found.warn(
                format!("{listen} is open to whoever reaches it, because `insecure` is set"),
                "set PATCHBAY_API_TOKEN",
            ),
            (true, false) => {}
            (false, _) => found.ok(format!("{listen} asks for a token")),
        }
        if settings
            .api_token
            .as_ref()
            .is_some_and(|token| token.0.len() < 16)
        {
            found.warn(
                "the token is shorter than 16 characters, so that it may be guessed",
                "take a longer one, such as `openssl rand -hex 24` prints",
            );
        }
        found
    }

    async fn server(&self) -> Findings {
        let mut found = Findings::default();
        let mut address = self.settings.listen;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let served = self
            .inspection
            .as_ref()
            .is_ok_and(|found| found.served_by.is_some());
        let asked = tokio::task::spawn_blocking(move || ready(address)).await;
        match asked.ok().flatten() {
            None if served => found.warn(
                format!("a server has the database open, and nothing answers on {address}"),
                "it listens elsewhere, or hangs: its log and its settings tell",
            ),
            None => found.ok(format!("no server runs on {address}")),
            Some((status, _)) if status == "200" => {
                found.ok(format!("the server on {address} is ready"));
            }
            Some((status, body)) => found.problem(
                format!("the server on {address} is not ready: it answers {status} {body}"),
                "see what is said of the database; the server's log has the reason",
            ),
        }
        found
    }
}

/// Asks for `/readyz`; gives the status and the body, or nothing where nobody speaks HTTP.
fn ready(address: SocketAddr) -> Option<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .strip_prefix("HTTP/1.1 ")?
        .split(' ')
        .next()?
        .to_owned();
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.trim().to_owned());
    Some((status, body.unwrap_or_default()))
}

/// The kind of file system, where it is one that others write too and that does not tell of it.
#[cfg(target_os = "linux")]
fn remote_kind(folder: &Path) -> Option<&'static str> {
    // As the kernel numbers them, in `linux/magic.h`.
    const REMOTE: &[(u64, &str)] = &[
        (0x6969, "NFS"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB"),
        (0x517b, "SMB"),
        (0x0102_1997, "9p"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
    ];
    // The type differs from machine to machine; the number has 32 bits on all.
    let kind = rustix::fs::statfs(folder).ok()?.f_type as u64 & 0xffff_ffff;
    REMOTE
        .iter()
        .find(|(number, _)| *number == kind)
        .map(|(_, name)| *name)
}

#[cfg(not(target_os = "linux"))]
fn remote_kind(_folder: &Path) -> Option<&'static str> {
    None
}

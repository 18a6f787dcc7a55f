//! `local-edge doctor`: is there a server, can one start, and can the other programs use it.
//!
//! Invariant: nothing is changed but what a start would change of the data directory. It works beside a server.

use std::net::TcpListener;
use std::path::Path;

use anyhow::Context as _;
use doctor::look::{edge_version, ids, look};
use doctor::queue::{Named, Role};
use doctor::{Line, Report, machine, queue};
use program::{Exit, OutputFormat};
use protocol::Timestamp;
use queues::{Address, Client, Endpoint, PlainHttp};

use crate::config::Settings;
use crate::credentials::Credentials;
use crate::data_dir::DataDir;
use crate::listener::Place;
use crate::server::{base_url, shell_path};

/// The queues that the other programs need.
const ROLES: [Role; 2] = [Role::Jobs, Role::Results];

/// Looks, and prints what was found.
pub(crate) fn answer(settings: anyhow::Result<Settings>, format: OutputFormat) -> anyhow::Result<Exit> {
    let mut report = Report::default();
    match settings {
        Err(error) => {
            let next = "local-edge serve --help   (it says what each setting is)";
            report.add([Line::failure("settings", format!("{error:#}"), next)]);
        }
        Ok(settings) => {
            report.add(of_settings(&settings));
            let runs = of_data_dir(&settings, &mut report);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            match runs {
                Some(true) => report.add(runtime.block_on(of_server(&settings))),
                Some(false) => report.add([can_listen(&settings.listen)]),
                None => {}
            }
            report.add(settings.env_file.as_deref().map(|path| of_env_file(path, &settings.listen)));
        }
    }
    program::print(&report.shown(format))?;
    Ok(report.exit())
}

fn of_settings(settings: &Settings) -> Vec<Line> {
    let check = "settings";
    let (place, data) = (&settings.listen, settings.data_dir.display());
    let mut lines = vec![Line::ok(check, format!("the server listens on {place}, its data is in {data}"))];
    if let Place::Address(address) = place
        && !address.ip().is_loopback()
    {
        let text = format!("other machines may reach {address}: token, key and jobs travel as plain HTTP");
        let next = "local-edge serve --listen 127.0.0.1:8787   (and a TLS proxy or an SSH tunnel in front)";
        lines.push(Line::warning(check, text, next));
    }
    if settings.faults {
        let text = "--faults (LOCAL_EDGE_FAULTS) is on: who has the API token can have requests and messages lost";
        lines.push(Line::warning(check, text, "unset LOCAL_EDGE_FAULTS   (it is for tests)"));
    }
    lines
}

/// Whether a server has the directory; nothing: nobody can.
fn of_data_dir(settings: &Settings, report: &mut Report) -> Option<bool> {
    let (check, dir) = ("data directory", &settings.data_dir);
    let serves = match DataDir::is_served(dir, &settings.trust) {
        Ok(serves) => serves,
        Err(error) => {
            let next = format!("ls -ld {}", shell_path(dir));
            report.add([Line::failure(check, format!("{error:#}"), next)]);
            return None;
        }
    };
    report.add([if serves {
        Line::ok(check, format!("a server has {}", dir.display()))
    } else {
        let text = format!("no server has {}: nobody can submit or fetch anything", dir.display());
        Line::warning(check, text, format!("local-edge serve --data-dir {} --env-file .env", shell_path(dir)))
    }]);
    report.add(machine::room_of("room for data", dir));
    Some(serves)
}

/// Could a server listen there?
fn can_listen(place: &Place) -> Line {
    let check = "address";
    let Place::Address(address) = place else {
        return Line::ok(check, format!("{place} is made by the server that starts"));
    };
    match TcpListener::bind(address) {
        Ok(_) => Line::ok(check, format!("{address} is free")),
        Err(error) => {
            let next = "ss -ltnp   (it shows who has which port; or choose another --listen)";
            Line::failure(check, format!("nobody can listen on {address}: {error}"), next)
        }
    }
}

/// What a server that runs says.
async fn of_server(settings: &Settings) -> Vec<Line> {
    let check = "server";
    let Some(url) = url_of(&settings.listen) else {
        let text = "it took a free port, which only the settings know that it has written";
        return vec![Line::warning(check, text, "laptop-consumer doctor --env-file FILE   (the one of --env-file)")];
    };
    let away = |why: String| {
        let next = "local-edge doctor --listen ADDRESS:PORT   (that of the server; or --socket PATH)";
        vec![Line::failure(check, why, next)]
    };
    let client = || -> anyhow::Result<_> {
        let address = Address::parse(&url, "", PlainHttp::OwnListener)?;
        let credentials = Credentials::read(&settings.data_dir)?;
        let socket = matches!(settings.listen, Place::Socket(_));
        let endpoint = Endpoint {
            base_url: if socket { url.clone() } else { format!("{url}/client/v4") },
            account_id: credentials.account_id,
            api_token: settings.api_token.clone().unwrap_or(credentials.api_token),
            api_token_origin: "the token of the data directory".to_owned(),
            plain_http: PlainHttp::OwnListener,
        };
        let http = queues::http_client(&address).context("no connection can be made")?;
        let client = Client::new(queues::http_client(&endpoint.address()?)?, &endpoint)?;
        Ok((address, http, endpoint, client))
    };
    let (address, http, endpoint, client) = match client() {
        Ok(all) => all,
        Err(error) => return away(format!("{error:#}")),
    };
    let version = edge_version(&http, &address).await;
    if let Err(why) = version {
        return away(why);
    }
    let mut lines = vec![machine::versions(&url, version, env!("CARGO_PKG_VERSION"))];
    let found = match ids(&client, &ROLES).await {
        Ok(found) => found,
        Err(error) => return away(error.to_string()),
    };
    let mut named = Vec::new();
    for (role, id) in ROLES.into_iter().zip(found) {
        match id {
            Some(id) => named.push(Named { role, subject: role.setting().to_owned(), id: Some(id) }),
            None => {
                let text = format!("the queue {} was deleted", role.usual_name());
                lines.push(Line::failure("queues", text, "hpc-consumer doctor --env-file .env --fix   (it makes it)"));
            }
        }
    }
    let seen = look(&client, &endpoint, "the account".to_owned(), named).await;
    lines.extend(queue::lines(&seen, "hpc-consumer doctor --env-file .env --fix"));
    lines.extend(machine::clock(seen.answered(), Timestamp::now()));
    lines
}

/// The address for clients on this machine, where it can be known.
fn url_of(place: &Place) -> Option<String> {
    match place {
        Place::Address(address) if address.port() == 0 => None,
        Place::Address(address) => Some(base_url(*address)),
        Place::Socket(_) => Some(place.to_string()),
    }
}

/// Does the file lead the other programs to this server?
fn of_env_file(path: &Path, place: &Place) -> Line {
    let (check, name) = ("env file", path.display());
    let next = "local-edge serve --env-file FILE   (a start writes it anew)";
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Line::warning(check, format!("{name} cannot be read: {error}"), next),
    };
    let told = text.lines().find_map(|line| line.strip_prefix("PRODUCER_URL=")).unwrap_or_default();
    let told = told.trim_matches('\'');
    match url_of(place) {
        Some(url) if url != told => {
            Line::warning(check, format!("{name} leads to {told:?}, and the server is at {url}"), next)
        }
        _ => Line::ok(check, format!("{name} leads to {told}")),
    }
}

#[cfg(test)]
mod tests {
    use doctor::Verdict;

    use super::*;

    #[test]
    fn an_address_that_somebody_has_is_a_failure() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place::Address(taken.local_addr().unwrap());
        assert_eq!(can_listen(&place).verdict, Verdict::Failure);
        drop(taken);
        assert_eq!(can_listen(&place).verdict, Verdict::Ok);
    }

    #[test]
    fn a_file_of_settings_leads_to_this_server_or_to_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, place) =
            (folder.path().join(".env"), Place::Address("127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap()));
        assert_eq!(of_env_file(&path, &place).verdict, Verdict::Warning);
        std::fs::write(&path, "PRODUCER_URL=http://127.0.0.1:9\n").unwrap();
        assert_eq!(of_env_file(&path, &place).verdict, Verdict::Ok);
        std::fs::write(&path, "PRODUCER_URL=http://127.0.0.1:8\n").unwrap();
        assert_eq!(of_env_file(&path, &place).verdict, Verdict::Warning);
    }
}

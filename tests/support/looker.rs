//! Somebody who looks on: lets itself in to the dashboard with the link that the command line prints, and reads it.

use reqwest::Client;

use super::rig::{Rig, free_port};

/// Gives a server a free port for HTTP; returns its address.
pub fn with_port(rig: &mut Rig) -> String {
    let port = free_port().to_string();
    rig.set("HTTP_LISTEN", &port);
    format!("http://127.0.0.1:{port}")
}

/// A browser that has come in. Cheap to clone.
#[derive(Clone)]
pub struct Looker {
    client: Client,
    address: String,
    cookie: String,
}

impl Looker {
    /// Comes in to the server of this rig, which listens at `address`.
    pub async fn come_in(rig: &Rig, address: &str) -> Self {
        let printed = rig.run(&["dashboard"]);
        let link = String::from_utf8(printed.stdout).unwrap();
        let pass = link.trim().split_once('#').unwrap_or_else(|| panic!("no link: {link}")).1;
        let client = matrix_agent::net::client().no_proxy().build().unwrap();
        let entered = client.post(format!("{address}/dashboard/enter")).body(format!("pass={pass}"));
        let entered = entered.send().await.unwrap();
        let set = entered.headers()["set-cookie"].to_str().unwrap();
        let cookie = set.split(';').next().unwrap().to_owned();
        Self { client, address: address.to_owned(), cookie }
    }

    /// Returns the same browser at another server.
    pub fn elsewhere(&self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self.clone() }
    }

    /// Loads a page and returns it.
    pub async fn see(&self, path: &str) -> String {
        let asked = self.client.get(format!("{}{path}", self.address)).header("cookie", &self.cookie);
        let shown = asked.send().await.unwrap();
        let status = shown.status();
        let text = shown.text().await.unwrap();
        assert_eq!(status, 200, "{text}");
        text
    }

    /// Loads the dashboard until it holds, and returns it as it is then.
    pub async fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let end = tokio::time::Instant::now() + super::rig::LIMIT;
        loop {
            let page = self.see("/dashboard").await;
            if holds(&page) {
                return page;
            }
            assert!(tokio::time::Instant::now() < end, "waited too long for {what}: {page}");
            // What is shown is gathered once a second.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
}

/// What stands in a part of the dashboard.
pub fn part<'a>(page: &'a str, id: &str) -> &'a str {
    let begin = page.split_once(&format!("<div id=\"{id}\">")).unwrap_or_else(|| panic!("no {id} in {page}")).1;
    begin.split_once("</section>").unwrap().0
}

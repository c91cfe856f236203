//! Checks the model: asks it for one token.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Check;
use crate::{config::Config, inference::Inference, net, ops, text};

const NAME: &str = "model";

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let mut checks = vec![probe(config).await];
    if let Some(url) = config.llm.base_url.as_ref().filter(|url| net::is_plain(url)) {
        checks.push(Check::warning(
            NAME,
            format!(
                "everybody on the way to {} can read the key and what is said in the rooms",
                url.host_str().unwrap_or_default()
            ),
            "Set LLM_BASE_URL to an https:// address, or reach the server through a tunnel",
        ));
    }
    checks
}

/// Returns the operator's inference servers, for a check that ends with `cancel`.
pub(super) fn inference(config: &Config, cancel: &CancellationToken) -> reqwest::Result<Inference> {
    Inference::new(config.paths.localbot_dir.clone(), TaskTracker::new(), cancel.clone())
}

async fn probe(config: &Config) -> Check {
    let name = &config.llm.model;
    if !ops::has_model(config) {
        return Check::bad(
            NAME,
            format!("`{name}` cannot be asked: LLM_API_KEY is not set"),
            "Write the key into `.env`; until then `matrix-agent demo` and `chat --demo-model` work without one",
        );
    }
    let cancel = CancellationToken::new();
    let inference = inference(config, &cancel);
    let _ends_with_this = cancel.drop_guard();
    let answered = match inference.map(|inference| ops::model(config, &inference)) {
        Ok(Ok(model)) => model.probe().await,
        Ok(Err(error)) => Err(error),
        Err(error) => return Check::bad(NAME, format!("`{name}` cannot be asked"), error.to_string()),
    };
    match answered {
        Ok(took) => Check::good(NAME, format!("`{name}` answered after {}", text::human_duration(took))),
        Err(error) => Check::bad(NAME, format!("`{name}` did not answer"), error.user_text()),
    }
}

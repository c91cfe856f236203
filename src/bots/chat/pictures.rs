//! The pictures that a chat bot's model is shown. It takes no other files.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::{ChatBot, SentFile, Upload};
use crate::{
    ids::Address,
    llm::{Message, Part},
    pictures, strings, text,
};

/// The longest name of a picture, in characters.
const NAME: usize = 100;

impl ChatBot {
    /// Keeps a picture that somebody sent. The error is a sentence to that person.
    pub(super) async fn keep_picture(&self, at: &Address, sent: &SentFile, bytes: Bytes) -> Result<Upload, String> {
        let shown = text::one_line(&sent.name, NAME);
        let not_seen = |why: &str| strings::chat::not_seen(&shown, why);
        if !self.source.sees() {
            return Err(not_seen(strings::chat::SEES_NOTHING));
        }
        if !sent.mime.starts_with("image/") {
            return Err(not_seen(strings::chat::ONLY_PICTURES));
        }
        let picture = pictures::prepare(bytes).await.map_err(|why| not_seen(&why.to_string()))?;
        let name = self.means.gallery.keep(at, picture.data.clone()).await.map_err(|error| {
            tracing::error!(%error, "a picture is not kept");
            not_seen(strings::files::PICTURE_NOT_STORED)
        })?;
        let picture = Part::Picture { name, mime: picture.mime.to_owned(), data: None };
        Ok(Upload { text: strings::chat::picture(&shown), path: shown, picture: Some(picture), unshown: None })
    }

    /// Reads the pictures that messages name. One that is gone stays without its bytes.
    pub(super) async fn hang_up(&self, at: &Address, messages: &mut [Message]) {
        let parts = messages.iter_mut().filter_map(|message| match message {
            Message::User { parts } => Some(parts),
            _ => None,
        });
        let mut frames: Vec<_> = parts
            .flatten()
            .filter_map(|part| match part {
                Part::Picture { name, data, .. } => Some((&*name, data)),
                _ => None,
            })
            .collect();
        if frames.is_empty() {
            return;
        }
        let names = frames.iter().map(|(name, _)| (*name).clone()).collect();
        let found = self.means.gallery.read(at, names).await;
        for (name, data) in &mut frames {
            **data = found.get(*name).map(|bytes| Arc::from(BASE64_STANDARD.encode(bytes)));
        }
    }

    /// Removes the pictures of a conversation that is over. Those that cannot be removed are bounded anyway.
    pub(super) async fn forget_pictures(&self, at: &Address) {
        if let Err(error) = self.means.gallery.clear(at).await {
            tracing::warn!(%error, "the room's pictures could not be removed");
        }
    }
}

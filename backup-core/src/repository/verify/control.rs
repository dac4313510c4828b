//! What stands under `control/`: each object is opened, and each says where it belongs.

use serde::de::DeserializeOwned;

use super::Verification;
use crate::format::control::{
    BeatDocument, CollectionDocument, CondemnedDocument, CondemnedPart, ConfirmedDocument, DecisionDocument,
    DigestDocument, FateDocument, HoldDocument, ObservedDocument, TombstoneDocument,
};
use crate::format::document::{self, SessionDocument};
use crate::limits;
use crate::repository::keys::{self, ControlKey};
use crate::transform::ObjectType;
use crate::{Error, ErrorKind, Result, SinkExt};

impl Verification<'_> {
    /// Opens them all. What is deleted meanwhile was somebody's to delete.
    pub(super) async fn check_control(&mut self) -> Result<()> {
        for meta in self.store().sink.clone().list_all(keys::CONTROL).await? {
            // What a later version has here is its own.
            let Some(key) = ControlKey::parse(&meta.key) else { continue };
            let checked = self.check_one(key).await;
            if checked.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                continue;
            }
            self.count(&meta.key, checked)?;
        }
        Ok(())
    }

    async fn check_one(&self, key: ControlKey) -> Result<()> {
        let belongs = match key {
            ControlKey::SessionOpen(id) => {
                let document: SessionDocument = self.open(key, ObjectType::Session).await?;
                document.session == id
            }
            ControlKey::SessionBeat(id, number) => {
                let document: BeatDocument = self.open(key, ObjectType::Session).await?;
                (document.session, document.number) == (id, number)
            }
            ControlKey::SessionDecision(id) => {
                let store = self.store();
                let bytes = store.get_whole(&key.key()?, limits::CONTROL_BYTES_MAX, self.job).await?;
                document::open_decision(&*store.protection, &bytes)?.0 == id
            }
            ControlKey::CollectionOpen(number) => {
                let document: CollectionDocument = self.open(key, ObjectType::Collection).await?;
                document.collection == number
            }
            ControlKey::CollectionPart(number, part) => {
                let document: CondemnedPart = self.open(key, ObjectType::Collection).await?;
                (document.collection, document.part) == (number, part)
            }
            ControlKey::CollectionCondemned(number) => {
                let document: CondemnedDocument = self.open(key, ObjectType::Collection).await?;
                document.collection == number
            }
            ControlKey::CollectionDecision(number) => {
                let document: DecisionDocument = self.open(key, ObjectType::Collection).await?;
                document.collection == number
            }
            // A digest's name is nothing but a name.
            ControlKey::Digest(_) => {
                let _: DigestDocument = self.open(key, ObjectType::Collection).await?;
                true
            }
            ControlKey::Confirmed(id) => {
                let document: ConfirmedDocument = self.open(key, ObjectType::Collection).await?;
                document.snapshot == id
            }
            ControlKey::Tombstone(id, number) => {
                let document: TombstoneDocument = self.open(key, ObjectType::Collection).await?;
                (document.snapshot, document.number) == (id, number)
            }
            ControlKey::Fate(id, number) => {
                let document: FateDocument = self.open(key, ObjectType::Collection).await?;
                (document.snapshot, document.number) == (id, number)
            }
            ControlKey::Hold(id, hold) => {
                let document: HoldDocument = self.open(key, ObjectType::Collection).await?;
                (document.snapshot, document.hold) == (id, hold)
            }
            ControlKey::Observed(_) => {
                let _: ObservedDocument = self.open(key, ObjectType::Collection).await?;
                true
            }
            // It holds nothing that anybody reads.
            ControlKey::Reserve => true,
        };
        if belongs { Ok(()) } else { Err(Error::corruption("is another's than its name says")) }
    }

    async fn open<T: DeserializeOwned>(&self, key: ControlKey, object_type: ObjectType) -> Result<T> {
        self.store().get_document(&key.key()?, object_type, limits::SNAPSHOT_BYTES_MAX, self.job).await
    }
}

//! Writing down what is to go: from then on no writer relies upon it.

use sha2::{Digest, Sha256};

use super::logs::UnneededLog;
use super::roots::ListedPack;
use crate::format::control::{CondemnedDocument, CondemnedPart, Names, Packed};
use crate::format::document;
use crate::limits;
use crate::repository::Repository;
use crate::repository::keys::ControlKey;
use crate::repository::store::{PutCounters, Store};
use crate::transform::ObjectType;
use crate::{JobContext, Result};

impl Repository {
    /// Condemns packs and segments of logs: first the parts that name them, which mean nothing by themselves, then the document that names the parts.
    pub(super) async fn condemn(
        &self,
        collection: u64,
        packs: Vec<ListedPack>,
        logs: Vec<UnneededLog>,
        put: &PutCounters,
        job: &JobContext,
    ) -> Result<()> {
        let store = self.store();
        let lengths = packs.iter().map(|pack| pack.len).chain(logs.iter().map(|log| log.len));
        let mut condemned = CondemnedDocument {
            collection,
            parts: Packed::default(),
            names: packs.len().saturating_add(logs.len()) as u64,
            bytes: lengths.fold(0, u64::saturating_add),
        };
        let of_packs = packs.chunks(limits::CONDEMNED_PART_NAMES).map(|packs| {
            let names = |wanted: ObjectType| {
                let packs = packs.iter().filter(|pack| pack.object_type == wanted);
                Packed(packs.map(|pack| pack.digest).collect())
            };
            Names { data: names(ObjectType::Data), meta: names(ObjectType::Meta), logs: Vec::new() }
        });
        // Their names are whole keys, and longer.
        let of_logs = logs
            .chunks(limits::CONDEMNED_PART_LOGS)
            .map(|logs| Names { logs: logs.iter().map(|log| log.key.clone()).collect(), ..Names::default() });
        for (part, names) in (0_u32..).zip(of_packs.chain(of_logs)) {
            let document = CondemnedPart { collection, part, names };
            let salt = Store::salt(job)?;
            let bytes = document::seal(&*store.protection, ObjectType::Collection, salt, &document)?;
            condemned.parts.0.push(Sha256::digest(&bytes).into());
            store.put(&ControlKey::CollectionPart(collection, part).key()?, bytes, put, job).await?;
        }
        let key = ControlKey::CollectionCondemned(collection).key()?;
        store.put_document(&key, ObjectType::Collection, &condemned, put, job).await
    }
}

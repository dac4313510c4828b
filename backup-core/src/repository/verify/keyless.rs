//! Verification by whoever has no key.

use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream;

use super::packs::check_digest;
use super::sample::Dice;
use super::{READS_MAX, VerifyOptions, note};
use crate::limits;
use crate::report::VerifyReport;
use crate::repository::listing::Listing;
use crate::repository::{guard, keys};
use crate::{JobContext, ObjectMeta, Result, Sink, SinkExt};

/// Verifies without any key what can be verified without: that packs and index segments have the bytes they are named by.
pub async fn verify_keyless(
    sink: &dyn Sink,
    options: &VerifyOptions,
    job: &JobContext,
) -> Result<VerifyReport> {
    guard::run(job, async move {
        options.check()?;
        let started = Instant::now();
        let mut report = VerifyReport::default();
        let mut dice = Dice::new(options, job)?;
        for prefix in [keys::META, keys::DATA, keys::INDEX] {
            let mut listing = Listing::new(sink, prefix);
            while let Some(page) = listing.next().await? {
                // What is not named by a hash is looked at in any case, and found to be damage.
                let is_chosen = |meta: &ObjectMeta| {
                    keys::digest_of(&meta.key).map_or(true, |digest| dice.chooses(&digest))
                };
                let chosen: Vec<_> = page.into_iter().filter(is_chosen).collect();
                let mut reads = stream::iter(chosen.into_iter().map(|meta| async move {
                    let read = sink.get_whole(&meta.key, limits::OBJECT_BYTES_MAX).await;
                    (meta.key, read)
                }))
                .buffer_unordered(READS_MAX);
                while let Some((key, read)) = reads.next().await {
                    job.check()?;
                    let checked = match read {
                        Ok(bytes) => {
                            report.checked.bytes = report.checked.bytes.saturating_add(bytes.len() as u64);
                            let name = key.clone();
                            guard::blocking(move || Ok(check_digest(&name, &bytes))).await?
                        }
                        Err(error) => Err(error),
                    };
                    report.checked.objects = report.checked.objects.saturating_add(1);
                    note(&mut report, &key, checked, job)?;
                }
            }
        }
        report.duration_seconds = started.elapsed().as_secs_f64();
        Ok(report)
    })
    .await
}

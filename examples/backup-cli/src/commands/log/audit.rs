//! `log audit`: gaps, histories, lag.

use backup_sources::postgres::archive::{WalAudit, server_end};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::human;
use crate::postgres::{Places, ServerArgs};

/// Options of `log audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// The cluster, by its system identifier, where the repository has logs of several
    #[arg(long, value_name = "NUMBER")]
    system: Option<u64>,
}

/// Audits. What is missing makes it [`Exit::Partial`].
pub async fn run(args: Args, context: &mut Context) -> Outcome {
    let opened = context.wal_archive(Places::Answering, args.system).await?;
    let server = match args.server.server(context).await? {
        None => None,
        // How far the archive is behind it.
        Some(server) => Some(server_end(&server.connect).await?),
    };
    let job = context.job();
    let audit = opened.archive.audit(server, &job).await?;
    let now = job.now();
    let seconds = audit.newest.map(|newest| now.seconds().saturating_sub(newest.seconds()).max(0));
    for failure in &opened.silent {
        context.console.say(human::name(&failure.message));
    }
    context.output.document(&document(&audit, seconds), |out| show(&audit, seconds, out))?;
    Ok(Exit::complete_if(audit.is_sound() && opened.silent.is_empty()))
}

/// As `--json` has it.
pub(super) fn document(audit: &WalAudit, seconds: Option<i64>) -> Value {
    let gaps: Vec<Value> = audit
        .timelines
        .iter()
        .flat_map(|timeline| timeline.gaps.iter().map(|gap| json!({ "timeline": timeline.timeline, "first": gap.first, "last": gap.last, "segments": gap.segments })))
        .collect();
    let mut document = json!(audit);
    if let Value::Object(members) = &mut document {
        members.insert(
            "lineages".into(),
            json!([{ "system_identifier": audit.system_identifier, "timelines": audit.timelines }]),
        );
        members.insert("gaps".into(), json!(gaps));
        members.insert("sound".into(), json!(audit.is_sound()));
        members.insert("lag_seconds".into(), json!(seconds));
    }
    document
}

pub(super) fn show(
    audit: &WalAudit,
    seconds: Option<i64>,
    out: &mut dyn std::io::Write,
) -> std::io::Result<()> {
    writeln!(out, "cluster {}", audit.system_identifier)?;
    for timeline in &audit.timelines {
        let named = |segment: Option<_>| {
            segment.map_or_else(
                || "nothing".to_owned(),
                |segment: backup_sources::postgres::wal::SegmentName| segment.to_string(),
            )
        };
        writeln!(
            out,
            "timeline {}: {} to {}, {}, {}",
            timeline.timeline,
            named(timeline.first),
            named(timeline.last),
            human::count(timeline.segments, "whole segment", "whole segments"),
            human::bytes(timeline.bytes_stored)
        )?;
        for gap in &timeline.gaps {
            writeln!(
                out,
                "  GAP: {} to {} ({})",
                gap.first,
                gap.last,
                human::count(gap.segments, "segment", "segments")
            )?;
        }
        for lost in &timeline.lost {
            writeln!(out, "  LOST: from {lost} on")?;
        }
        if timeline.lacks_history {
            writeln!(out, "  MISSING: {}.history", timeline.timeline)?;
        }
    }
    for (place, files) in audit.behind.iter().enumerate().filter(|(_, files)| **files > 0) {
        writeln!(out, "place {}: lacks {}", place.saturating_add(1), human::count(*files, "file", "files"))?;
    }
    let frontier = audit.frontier.map_or_else(|| "nowhere".to_owned(), |frontier| frontier.to_string());
    write!(out, "archived up to {frontier}")?;
    if let Some(bytes) = audit.lag_bytes {
        write!(out, ", {} behind the server", human::bytes(bytes))?;
    }
    match seconds {
        Some(seconds) => writeln!(out, ", the last of it {seconds} s ago"),
        None => writeln!(out),
    }
}

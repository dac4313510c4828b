//! backup-cli

//! As whom a server runs.

use backup_core::{Error, Result};
use nix::unistd::User;

/// The numbers of a user and of the user's own group, by name; none if there is no such user here.
///
/// # Errors
///
/// The system cannot be asked.
///
/// ```
/// use backup_sources::postgres::recovery::user_of;
///
/// assert_eq!(user_of("root")?, Some((0, 0)));
/// assert_eq!(user_of("nobody at all")?, None);
/// # Ok::<(), backup_core::Error>(())
/// ```
pub fn user_of(name: &str) -> Result<Option<(u32, u32)>> {
    let found = User::from_name(name);
    let found = found.map_err(|e| Error::io(format!("users cannot be looked up for `{name}`"), e.into()))?;
    Ok(found.map(|user| (user.uid.as_raw(), user.gid.as_raw())))
}

//! Logging in to a WAL sender.

use backup_core::{Error, ErrorKind, Result};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use super::framing::{Framed, Received, broken, of_response};
use crate::postgres::Connect;
use crate::postgres::connect::Dialled;

/// Asks to be let in, and waits until the server is ready for a command.
pub(super) async fn log_in(dialled: Dialled, connect: &Connect) -> Result<Framed> {
    let Dialled { wire, password, address } = dialled;
    let mut framed = Framed::new(wire, connect.timeout());
    let parameters = [
        ("user", connect.user()),
        ("replication", "true"),
        ("application_name", connect.application_name()),
        ("client_encoding", "UTF8"),
        ("options", connect.options().unwrap_or_default()),
    ];
    let said = parameters.into_iter().filter(|(_, value)| !value.is_empty());
    framed.send(|out| frontend::startup_message(said, out)).await?;
    let at = |error: Error| Error::new(error.kind(), format!("{address}: {}", error.message()));
    authenticate(&mut framed, connect, password.as_deref().map(str::as_bytes)).await.map_err(at)?;
    loop {
        match framed.answer().await? {
            Received::Message(Message::ReadyForQuery(_)) => return Ok(framed),
            Received::Message(Message::BackendKeyData(_)) => {}
            Received::Message(Message::ErrorResponse(body)) => return Err(at(of_response(&body)?)),
            _ => return Err(broken("lets somebody in in an unknown manner")),
        }
    }
}

async fn authenticate(framed: &mut Framed, connect: &Connect, password: Option<&[u8]>) -> Result<()> {
    let (_, must_bind) = connect.binds();
    let password = || {
        password.ok_or_else(|| {
            let message = "the server asks for a password, and there is none (PGPASSWORD, ~/.pgpass)";
            Error::new(ErrorKind::Denied, message)
        })
    };
    let unbound = || {
        let message = "the server does not bind logging in to its certificate, which channel_binding demands";
        Err(Error::new(ErrorKind::Denied, message))
    };
    let first = message(framed).await?;
    match first {
        Message::AuthenticationOk if must_bind => unbound(),
        Message::AuthenticationOk => Ok(()),
        Message::AuthenticationCleartextPassword | Message::AuthenticationMd5Password(_) if must_bind => {
            unbound()
        }
        Message::AuthenticationCleartextPassword => {
            let password = password()?;
            framed.send(|out| frontend::password_message(password, out)).await?;
            accepted(framed).await
        }
        Message::AuthenticationMd5Password(body) => {
            let hash = md5_hash(connect.user().as_bytes(), password()?, body.salt());
            framed.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
            accepted(framed).await
        }
        Message::AuthenticationSasl(body) => scram(framed, connect, &body, password()?).await,
        Message::ErrorResponse(body) => Err(of_response(&body)?),
        _ => {
            let message = "the server wants to be logged in to in a manner that is not supported here: use scram-sha-256";
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

/// SCRAM (RFC 5802), bound to the server's certificate where that can be.
async fn scram(
    framed: &mut Framed,
    connect: &Connect,
    offered: &AuthenticationSaslBody,
    password: &[u8],
) -> Result<()> {
    let (may_bind, must_bind) = connect.binds();
    let (mut plain, mut plus) = (false, false);
    let mut mechanisms = offered.mechanisms();
    while let Some(mechanism) = mechanisms.next().map_err(|_| broken("offers mechanisms that are none"))? {
        match mechanism {
            SCRAM_SHA_256 => plain = true,
            SCRAM_SHA_256_PLUS => plus = true,
            _ => {}
        }
    }
    let hash = framed.binding().filter(|_| may_bind);
    let (mechanism, binding) = match hash {
        Some(hash) if plus => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)),
        _ if must_bind => {
            let message =
                "logging in cannot be bound to the server's certificate, which channel_binding demands";
            return Err(Error::new(ErrorKind::Denied, message));
        }
        // It says that it could: a server that could, too, knows then that somebody took its offer out.
        Some(_) if plain => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None if plain => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        _ => {
            let message = "the server offers no SCRAM that is supported here: use scram-sha-256";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    };
    let wrong =
        |_| Error::new(ErrorKind::Denied, "the server does not know the password, or fails to prove it");
    let mut scram = ScramSha256::new(password, binding);
    framed.send(|out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
    match message(framed).await? {
        Message::AuthenticationSaslContinue(body) => scram.update(body.data()).map_err(wrong)?,
        Message::ErrorResponse(body) => return Err(of_response(&body)?),
        _ => return Err(broken("does not go on with SCRAM")),
    }
    framed.send(|out| frontend::sasl_response(scram.message(), out)).await?;
    match message(framed).await? {
        // The server proves that it knows the password: nobody else stands in for it.
        Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(wrong)?,
        Message::ErrorResponse(body) => return Err(of_response(&body)?),
        _ => return Err(broken("does not end SCRAM")),
    }
    framed.is_bound = mechanism == SCRAM_SHA_256_PLUS;
    accepted(framed).await
}

async fn accepted(framed: &mut Framed) -> Result<()> {
    match message(framed).await? {
        Message::AuthenticationOk => Ok(()),
        Message::ErrorResponse(body) => Err(of_response(&body)?),
        _ => Err(broken("neither lets anybody in nor says why")),
    }
}

async fn message(framed: &mut Framed) -> Result<Message> {
    match framed.answer().await? {
        Received::Message(message) => Ok(message),
        Received::CopyBoth => Err(broken("replicates before anybody logged in")),
    }
}

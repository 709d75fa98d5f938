//! `sidekey login` and `logout`: through the running instance where there is one, else at a desk of the command's own.

mod browser;
mod counter;

use std::io::{BufRead as _, Read as _};
use std::time::Duration;

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use self::browser::open;
use self::counter::Counter;
use super::{ConfigArg, Failure, complain, load, runtime, say};
use crate::config::{Config, CredentialKind, Environment, LoadOptions};
use crate::credential::DEFAULT_ACCOUNT;
use crate::login::pages::NO_REFRESH;
use crate::login::{Done, LoginError, Logout, Outcome, Return, Revoked, account_name, unknown};
use crate::secret::Secret;

/// How often a login is asked after.
const POLL: Duration = Duration::from_millis(200);
/// How long a login in its last step is waited for.
const LAST_STEP: Duration = Duration::from_secs(30);
/// The most that a person may paste, in bytes.
const MAX_PASTED: u64 = 32 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct LoginArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The credential, as the configuration names it.
    credential: String,
    /// Whose grant it is to be.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_ACCOUNT)]
    account: String,
    /// Print the address to log in at, and read back the one where the browser ends up.
    #[arg(long)]
    no_browser: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct LogoutArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The credential, as the configuration names it.
    credential: String,
    /// Whose grant it is.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_ACCOUNT)]
    account: String,
}

/// Logs in to a credential.
pub(super) fn login(args: &LoginArgs, environment: &Environment) -> Result<(), Failure> {
    let config = config_with_login(&args.config, environment, &args.credential, &args.account)?;
    runtime()?.block_on(async {
        let counter = Counter::find(&args.config, &config, environment).await?;
        let done = if args.no_browser {
            by_hand(&counter, args).await
        } else {
            in_browser(&counter, args, environment, &config.secret_variables).await
        };
        // What is unsaved may be saved now; a page may still be on its way.
        let closed = counter.close().await;
        let done = done?;
        say(granted(&done));
        if !done.refresh {
            say(NO_REFRESH);
        }
        match done.unsaved {
            Some(why) if closed.is_lost => Err(Failure::Running(format!(
                "the store did not take the grant, so it is lost: {why}; mend [store] and log in again"
            ))),
            Some(why) if closed.is_elsewhere => {
                complain(format_args!("warning: the store did not take the grant; the instance has it in memory and tries again: {why}"));
                Ok(())
            }
            _ => Ok(()),
        }
    })
}

/// Revokes an account's grant and forgets it.
pub(super) fn logout(args: &LogoutArgs, environment: &Environment) -> Result<(), Failure> {
    let config = config_with_login(&args.config, environment, &args.credential, &args.account)?;
    runtime()?.block_on(async {
        let counter = Counter::find(&args.config, &config, environment).await?;
        let done = counter.log_out(&args.credential, &args.account).await;
        counter.close().await;
        let Logout { existed, revoked } = done?;
        let who = format!("credential {}, account {}", args.credential, args.account);
        match revoked {
            _ if !existed => say(format_args!("nobody was logged in: {who}")),
            Revoked::Yes => say(format_args!("logged out: {who}; revoked at the authorization server and forgotten")),
            Revoked::Nowhere => say(format_args!(
                "logged out: {who}; forgotten here, and not revoked: the authorization server offers no place for that"
            )),
            Revoked::Failed { error } => {
                say(format_args!("logged out: {who}; forgotten here"));
                return Err(Failure::Running(format!(
                    "not revoked at the authorization server, where it may still be valid: {error}"
                )));
            }
        }
        Ok(())
    })
}

/// The configuration, if people log in to its credential of this name.
fn config_with_login(
    arg: &ConfigArg,
    environment: &Environment,
    credential: &str,
    account: &str,
) -> Result<Config, Failure> {
    // A running instance has the secrets; they are looked at when there is none.
    let config = load(arg, environment, LoadOptions { check_secrets: false })?.config;
    let usage = |error: LoginError| Failure::Configuration(error.to_string());
    account_name(account).map_err(usage)?;
    let logins = || {
        let is_login = |kind: &CredentialKind| matches!(kind, CredentialKind::AuthorizationCode(_));
        config.credentials.iter().filter(move |known| is_login(&known.kind)).map(|known| &*known.name)
    };
    if !logins().any(|known| known == credential) {
        return Err(usage(unknown(credential, logins())));
    }
    Ok(config)
}

async fn in_browser(
    counter: &Counter,
    args: &LoginArgs,
    environment: &Environment,
    hidden: &[String],
) -> Result<Done, Failure> {
    let begun = counter.begin(&args.credential, &args.account, Return::Redirect).await?;
    let link = begun.link.expose();
    say(format_args!("Opening {} in the browser; if it does not open, go to: {link}", args.credential));
    open(link, environment, hidden);
    let finished = over(counter, &args.credential, &begun.id);
    let why = tokio::select! {
        finished = tokio::time::timeout(begun.expires_in, finished) => match finished {
            Ok(outcome) => return done(outcome?),
            Err(_) => too_late(begun.expires_in),
        },
        _ = tokio::signal::ctrl_c() => Failure::Running("cancelled".to_owned()),
    };
    counter.cancel(&args.credential, &begun.id).await;
    // One that is in its last step cannot be stopped any more, and counts.
    match tokio::time::timeout(LAST_STEP, over(counter, &args.credential, &begun.id)).await {
        Ok(Ok(Outcome::Done(done))) => Ok(done),
        _ => Err(why),
    }
}

/// Waits until a login is over.
async fn over(counter: &Counter, credential: &str, id: &str) -> Result<Outcome, Failure> {
    loop {
        match counter.outcome(credential, id).await? {
            Outcome::Waiting => tokio::time::sleep(POLL).await,
            over => return Ok(over),
        }
    }
}

async fn by_hand(counter: &Counter, args: &LoginArgs) -> Result<Done, Failure> {
    let begun = counter.begin(&args.credential, &args.account, Return::Paste).await?;
    say(format_args!(
        "Log in at this address, in any browser:\n\n{}\n\n\
         At the end the browser shows a page that cannot be loaded. Copy its address and paste it here:",
        begun.link.expose()
    ));
    let pasted = match tokio::time::timeout(begun.expires_in, one_line()).await {
        Ok(Some(pasted)) => pasted,
        Ok(None) => return Err(Failure::Running("nothing was pasted".to_owned())),
        Err(_) => return Err(too_late(begun.expires_in)),
    };
    done(counter.paste(&args.credential, &begun.id, &pasted).await?)
}

fn done(outcome: Outcome) -> Result<Done, Failure> {
    match outcome {
        Outcome::Done(done) => Ok(done),
        Outcome::Failed { error } => Err(Failure::Running(format!("not logged in: {error}"))),
        Outcome::Waiting => Err(Failure::Running("not logged in: the login was not finished".to_owned())),
    }
}

fn too_late(limit: Duration) -> Failure {
    Failure::Running(format!("not logged in: nobody finished the login within {limit:?}; begin again"))
}

/// One line of standard input, or none at its end. The thread that waits for it ends with the process.
async fn one_line() -> Option<Secret> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = Zeroizing::new(String::new());
        let read = std::io::stdin().lock().take(MAX_PASTED).read_line(&mut line);
        let line = read.ok().filter(|read| *read > 0).map(|_| Secret::new(line.as_str()));
        let _ = sender.send(line);
    });
    receiver.await.ok().flatten()
}

/// What a login granted, in a line.
fn granted(done: &Done) -> String {
    let Done { credential, account, .. } = done;
    let scope = done.scope.as_deref().unwrap_or("what was asked for");
    let expires = match done.expires_in {
        Some(seconds) if done.refresh => {
            format!("its access token lives for {seconds} s and is renewed by itself")
        }
        Some(seconds) => format!("expires in {seconds} s"),
        None => "its first access token cannot be used; another one is fetched".to_owned(),
    };
    format!("logged in: credential {credential}, account {account}; granted: {scope}; {expires}")
}

// npm's OAuth clients, none of them written here: WANTED BASE_URL CLIENT_ID CLIENT_SECRET.
//
// WANTED is `works` or `refused`. The registry has no client of Aura's API that could be given another URL; these are
// what programs use there. Prints a line for each check.

import * as openid from 'openid-client';
import { ClientCredentials } from 'simple-oauth2';

const [wanted, base, id, secret] = process.argv.slice(2);
const instances = 'Production Staging';

async function listed(token) {
  const answer = await fetch(`${base}/v1/instances`, { headers: { authorization: `Bearer ${token}` } });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  return (await answer.json()).data.map((instance) => instance.name).join(' ');
}

/** `options`: where it writes id and secret, and whether it form-urlencodes them first. */
async function ofSimpleOauth2(options) {
  const { origin, pathname } = new URL(base);
  const client = new ClientCredentials({
    client: { id, secret },
    auth: { tokenHost: origin, tokenPath: `${pathname}/oauth/token` },
    options,
  });
  const token = await client.getToken({});
  if (token.expired()) throw new Error('it is expired at once');
  return listed(token.token.access_token);
}

async function ofOpenidClient(authentication) {
  const server = { issuer: base, token_endpoint: `${base}/oauth/token` };
  const client = new openid.Configuration(server, id, undefined, authentication(secret));
  openid.allowInsecureRequests(client);
  const token = await openid.clientCredentialsGrant(client);
  return listed(token.access_token);
}

async function judge(name, call) {
  const found = await call().catch((error) => {
    const { message, status, data } = error;
    return `${message} ${JSON.stringify([status, data?.payload])}`;
  });
  const [what, well] = wanted === 'works'
    ? ['fetches its own token and works', found === instances]
    : ['is refused, and says why', found.includes('invalid_client') || found.includes('401')];
  console.log(`${well ? 'ok      ' : 'FAILED  '}${name} ${what}${well ? '' : `: ${found}`}`);
}

await judge('simple-oauth2, Basic', () => ofSimpleOauth2({ credentialsEncodingMode: 'strict' }));
await judge('simple-oauth2, Basic as it is', () => ofSimpleOauth2({ credentialsEncodingMode: 'loose' }));
await judge('simple-oauth2, the secret in the body', () => ofSimpleOauth2({ authorizationMethod: 'body' }));
await judge('openid-client, Basic', () => ofOpenidClient(openid.ClientSecretBasic));
await judge('openid-client, the secret in the body', () => ofOpenidClient(openid.ClientSecretPost));

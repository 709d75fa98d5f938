// An authorization server that nobody here wrote (npm oidc-provider), an API behind it, and what they have seen.
//
//     node server.mjs '{"redirects": ["http://127.0.0.1:7601/callback"], "access_ttl": 1, "host": "127.0.0.1"}'
//
// It prints one line of JSON: issuer, api, control, clients. It ends with its stdin. The server's own logic is the
// package's: its pages, its rotation, its detection of reuse. This file keeps its entries, counts, and delays.
//
// The control listener:
//     GET  /stats                  counts, and every refresh token that was presented twice
//     GET  /account?sub=NAME       what became of one account's refresh tokens
//     GET  /next?after=N&wait=MS   answers when more than N requests have come to the token endpoint
//     GET  /secrets                everything that must never be shown, each with what it is
//     POST /set                    {"access_ttl": s, "before": [min, max] ms, "after": [min, max] ms, "hang_up": 0..1}
//
// `before` is waited before a token is used up, `after` between that and the answer; `hang_up` is how often the
// connection is closed in place of that answer.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';

// Standard output is for one line of JSON.
console.info = console.log = console.error;

const { default: Provider } = await import('oidc-provider');

const settings = { redirects: [], access_ttl: 3600, host: '127.0.0.1', before: [0, 0], after: [0, 0], hang_up: 0 };
Object.assign(settings, JSON.parse(process.argv[2] ?? '{}'));

const hash = (text) => createHash('sha256').update(text).digest('hex');
const between = ([min, max]) => min + Math.random() * (max - min);
const pause = (milliseconds) => (milliseconds > 0 ? new Promise((done) => { setTimeout(done, milliseconds); }) : null);

// ---- What was seen ---------------------------------------------------------------------------------------------

const seen = {
  arrivals: 0, // requests to the token endpoint
  presentations: [], // of refresh tokens, in order
  errors: {}, // refusals of refresh tokens, by error and reason
  logins: 0,
  revocations: 0,
  grants_revoked: 0,
  api: { requests: 0, refused: 0 },
};
const refreshTokens = new Map(); // hash → {sub, value, successor}
const newest = new Map(); // sub → hash of its newest refresh token
const accessTokens = new Map(); // hash → {sub, expires: ms}
const secrets = new Map(); // value → what it is
const waiting = new Set(); // long polls

function secret(what, value) {
  if (typeof value === 'string' && value.length >= 8) secrets.set(value, what);
}

/** Remembers what an answer of the token endpoint gave out. */
function granted(sub, body, predecessor) {
  const id = hash(body.access_token);
  accessTokens.set(id, { sub, expires: Date.now() + body.expires_in * 1000 });
  secret('access token', body.access_token);
  secret('id token', body.id_token);
  if (body.refresh_token) {
    const token = hash(body.refresh_token);
    if (!refreshTokens.has(token)) refreshTokens.set(token, { sub, value: body.refresh_token });
    if (predecessor) predecessor.successor = token;
    newest.set(sub, token);
    secret('refresh token', body.refresh_token);
  }
}

/** Refresh tokens that were presented more than once, each with what became of the first time. */
function repeats() {
  const first = new Map();
  const found = [];
  for (const record of seen.presentations) {
    if (first.has(record.token)) found.push({ sub: record.sub, first: first.get(record.token), again: record });
    else first.set(record.token, record);
  }
  return found;
}

// ---- The authorization server ----------------------------------------------------------------------------------

/** The package's own adapter keeps a thousand entries; this one keeps all. */
class Adapter {
  static entries = new Map();

  static grants = new Map();

  constructor(model) { this.model = model; }

  key(id) { return `${this.model}:${id}`; }

  async upsert(id, payload) {
    const key = this.key(id);
    Adapter.entries.set(key, payload);
    if (payload.uid) Adapter.entries.set(`uid:${payload.uid}`, key);
    if (payload.grantId && this.model !== 'Grant') {
      if (!Adapter.grants.has(payload.grantId)) Adapter.grants.set(payload.grantId, new Set());
      Adapter.grants.get(payload.grantId).add(key);
    }
  }

  async find(id) { return Adapter.entries.get(this.key(id)); }

  async findByUid(uid) { return Adapter.entries.get(Adapter.entries.get(`uid:${uid}`)); }

  async findByUserCode() { return undefined; }

  async consume(id) { Adapter.entries.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }

  async destroy(id) { Adapter.entries.delete(this.key(id)); }

  async revokeByGrantId(grantId) {
    for (const key of Adapter.grants.get(grantId) ?? []) Adapter.entries.delete(key);
    Adapter.grants.delete(grantId);
  }
}

const random = () => randomBytes(24).toString('base64url');
const signers = {
  RS256: ['rsa', { modulusLength: 2048 }],
  PS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
};

/** The registered clients, and what each needs to show who it is. */
function register() {
  const common = {
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    redirect_uris: settings.redirects,
  };
  const registered = [];
  const shown = {};
  const add = (name, method, { metadata = {}, ...more } = {}) => {
    const { client_id = `sidekey-${name}`, client_secret } = more;
    registered.push({
      ...common, client_id, ...(client_secret && { client_secret }), token_endpoint_auth_method: method, ...metadata,
    });
    shown[name] = { client_id, ...more };
  };
  add('post', 'client_secret_post', { client_id: 'sidekey', client_secret: random() });
  // What RFC 6749 §2.3.1 has encoded twice.
  add('basic', 'client_secret_basic', { client_secret: `p%41+&= :~/${random()}` });
  add('none', 'none');
  for (const [algorithm, [type, options]] of Object.entries(signers)) {
    const { publicKey, privateKey } = generateKeyPairSync(type, options);
    const jwk = { ...publicKey.export({ format: 'jwk' }), kid: `key-${algorithm}`, alg: algorithm, use: 'sig' };
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
    secret('private key', pem.split('\n')[1]);
    add(algorithm, 'private_key_jwt', {
      private_key: pem,
      key_id: jwk.kid,
      key_algorithm: algorithm,
      metadata: { jwks: { keys: [jwk] }, token_endpoint_auth_signing_alg: algorithm },
    });
  }
  for (const { client_secret } of registered) secret('client secret', client_secret);
  return [registered, shown];
}

function bind(handler) {
  return new Promise((done) => {
    const server = createServer(handler);
    server.keepAliveTimeout = 60_000;
    server.listen(0, '127.0.0.1', () => done([server, server.address().port]));
  });
}

const [front, port] = await bind();
const issuer = `http://${settings.host}:${port}`;
const [clients, shown] = register();
const { privateKey: signing } = generateKeyPairSync('rsa', { modulusLength: 2048 });

const provider = new Provider(issuer, {
  adapter: Adapter,
  clients,
  cookies: { keys: [random()] },
  jwks: { keys: [{ ...signing.export({ format: 'jwk' }), kid: 'server', alg: 'RS256', use: 'sig' }] },
  scopes: ['openid', 'offline_access', 'urn:neoncloud:projects:read'],
  features: { devInteractions: { enabled: true }, revocation: { enabled: true } },
  pkce: { required: () => true, methods: ['S256'] },
  rotateRefreshToken: true,
  ttl: {
    AccessToken: () => settings.access_ttl,
    AuthorizationCode: 60,
    Grant: 86_400,
    IdToken: 3600,
    Interaction: 3600,
    RefreshToken: 86_400,
    Session: 86_400,
  },
});

provider.on('server_error', (_, error) => console.error(error));
// What is wrong with a grant, it says to itself only.
provider.on('grant.error', (ctx, error) => { ctx.state.reason = error.error_detail ?? error.error_description; });
provider.on('grant.revoked', () => { seen.grants_revoked += 1; });
provider.on('authorization.success', (_, answer) => secret('code', answer.code));

provider.use(async (ctx, next) => {
  if (ctx.path === '/auth') {
    for (const name of ['state', 'nonce']) secret(name, ctx.query[name]);
    return next();
  }
  if (ctx.path === '/token/revocation') {
    seen.revocations += 1;
    return next();
  }
  return ctx.path === '/token' && ctx.method === 'POST' ? tokenEndpoint(ctx, next) : next();
});

async function tokenEndpoint(ctx, next) {
  const at = Date.now();
  seen.arrivals += 1;
  for (const wake of waiting) wake();
  await pause(between(settings.before));
  await next();
  const form = ctx.oidc?.body ?? {};
  for (const name of ['code_verifier', 'client_assertion']) secret(name, form[name]);
  if (form.grant_type !== 'refresh_token') {
    if (ctx.status === 200) {
      seen.logins += 1;
      granted(ctx.oidc.entities.Account.accountId, ctx.body);
    }
    return;
  }
  const id = hash(form.refresh_token ?? '');
  const known = refreshTokens.get(id);
  const record = {
    token: id.slice(0, 12), sub: known?.sub, replica: form.replica, at, outcome: 'used', answered: null, gone: false,
  };
  seen.presentations.push(record);
  if (ctx.status === 200) {
    granted(ctx.oidc.entities.Account.accountId, ctx.body, known);
    record.successor = known?.successor?.slice(0, 12);
  } else {
    record.outcome = `${ctx.body?.error}: ${ctx.state.reason}`;
    seen.errors[record.outcome] = (seen.errors[record.outcome] ?? 0) + 1;
  }
  // Whoever has gone by now can never read the answer.
  ctx.res.once('finish', () => { record.answered = Date.now(); });
  ctx.res.once('close', () => { record.gone = record.answered === null; });
  await pause(between(settings.after));
  if (Math.random() < settings.hang_up) ctx.req.socket.destroy();
  if (ctx.req.socket.destroyed) record.gone = true;
}

front.on('request', provider.callback());

// ---- The API ---------------------------------------------------------------------------------------------------

const answer = (response, status, body) => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
};

const [, api] = await bind(async (request, response) => {
  if (request.url.startsWith('/other-site?')) {
    // A page of somebody else that makes the visitor's browser send a form.
    const target = new URL(request.url, issuer).searchParams.get('target').replaceAll('"', '');
    response.writeHead(200, { 'content-type': 'text/html' }).end(`<title>Other site</title>
<form method="post" action="${target}"><input name="token" value="guess"><button>Win</button></form>`);
    return;
  }
  seen.api.requests += 1;
  const token = /^Bearer ([\w.~+/-]+=*)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
  const known = accessTokens.get(hash(token));
  // The package counts whole seconds, which is too coarse for tokens that live one.
  const alive = known && Date.now() < known.expires
    && await provider.AccessToken.find(token, { ignoreExpiration: true });
  if (!alive) {
    seen.api.refused += 1;
    answer(response, 401, { request_id: '1', code: '', message: 'authentication failed' });
    return;
  }
  answer(response, 200, { account: known.sub, token: hash(token).slice(0, 12), path: request.url });
});

// ---- Control ---------------------------------------------------------------------------------------------------

async function control(request, response) {
  const url = new URL(request.url, 'http://control');
  const asked = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise);
  switch (url.pathname) {
    case '/stats': {
      const { presentations, ...counts } = seen;
      const used = presentations.filter((record) => record.outcome === 'used').length;
      return answer(response, 200, { ...counts, presented: presentations.length, used, repeats: repeats() });
    }
    case '/account': {
      const sub = url.searchParams.get('sub');
      const own = seen.presentations.filter((record) => record.sub === sub);
      const value = refreshTokens.get(newest.get(sub))?.value;
      const found = value && await provider.RefreshToken.find(value);
      return answer(response, 200, {
        generations: own.filter((record) => record.outcome === 'used').length,
        alive: Boolean(found && !found.consumed),
        newest: newest.get(sub)?.slice(0, 12),
        presentations: own.slice(-20),
      });
    }
    case '/next': {
      const after = asked('after', 0);
      if (seen.arrivals <= after) {
        await new Promise((done) => {
          const timer = setTimeout(done, asked('wait', 5000));
          const wake = () => { clearTimeout(timer); waiting.delete(wake); done(); };
          waiting.add(wake);
        });
      }
      return answer(response, 200, { arrivals: seen.arrivals });
    }
    case '/secrets':
      return answer(response, 200, [...secrets].map(([value, what]) => ({ what, value })));
    case '/set': {
      let body = '';
      for await (const chunk of request) body += chunk;
      Object.assign(settings, JSON.parse(body));
      return answer(response, 200, {});
    }
    default:
      return answer(response, 404, {});
  }
}

const [, controlPort] = await bind(control);

process.stdin.resume().once('end', () => process.exit(0));
process.stdout.write(`${JSON.stringify({
  issuer, api: `http://127.0.0.1:${api}`, control: `http://127.0.0.1:${controlPort}`, clients: shown,
})}\n`);

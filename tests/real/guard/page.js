'use strict';
// Each way in which a page can make its browser send something. `to(kind)` is sidekey's address for an answer of that kind.

const within = (ms, promise) => Promise.race([promise, new Promise((done) => { setTimeout(done, ms, 'nothing'); })]);
const loads = (element, to, attribute = 'src') => new Promise((done) => {
  element.onload = () => done('works');
  element.onloadedmetadata = element.onload;
  element.onerror = () => done('fails');
  element[attribute] = to;
  document.body.append(element);
});
const make = (name, more = {}) => Object.assign(document.createElement(name), more);
const read = async (to, options) => { const answer = await fetch(to, options); return (await answer.json()).ok ? 'works' : 'fails'; };
const blind = async (to, options) => { await fetch(to, { mode: 'no-cors', ...options }); return 'sent'; };
const json = { 'content-type': 'application/json' };

function form(to, method, enctype, target) {
  const element = make('form', { action: to, method, enctype: enctype ?? '', target });
  for (const [name, value] of new URL(to).searchParams) element.append(make('input', { name, value }));
  document.body.append(element);
  element.submit();
}

/** A frame that goes somewhere: what it comes to cannot be seen from here. */
function frame(more = {}) {
  const element = make('iframe', { name: `f${Math.random()}`, ...more });
  document.body.append(element);
  return element;
}
const loaded = (element) => new Promise((done) => { element.onload = () => done('sent'); });

const imports = (script, to) => new Promise((done) => {
  const worker = new Worker(script);
  worker.onmessage = ({ data }) => done(data);
  worker.postMessage(to('js'));
});

const ways = {
  'fetch': (to) => read(to('json')),
  'fetch no-cors': (to) => blind(to('json')),
  'fetch credentials': (to) => read(to('json'), { credentials: 'include' }),
  'fetch POST text': (to) => read(to('json'), { method: 'POST', body: 'text' }),
  'fetch POST no-cors': (to) => blind(to('json'), { method: 'POST', body: 'text' }),
  'fetch POST JSON': (to) => read(to('json'), { method: 'POST', body: '{}', headers: json }),
  'fetch PUT': (to) => read(to('json'), { method: 'PUT', body: '{}', headers: json }),
  'fetch DELETE': (to) => read(to('json'), { method: 'DELETE' }),
  'fetch own header': (to) => read(to('json'), { headers: { 'x-own': '1' } }),
  'fetch Authorization': (to) => read(to('json'), { headers: { authorization: 'Bearer mine', 'sidekey-token': 'mine' } }),
  'XMLHttpRequest': (to) => new Promise((done) => {
    const request = new XMLHttpRequest();
    request.onload = () => done(request.status === 200 ? 'works' : 'fails');
    request.onerror = () => done('fails');
    request.open('GET', to('json'));
    request.send();
  }),
  'sendBeacon': async (to) => (navigator.sendBeacon(to('json'), 'text') ? 'sent' : 'fails'),
  'fetch keepalive': (to) => read(to('json'), { method: 'POST', body: 'text', keepalive: true }),
  'form GET': (to) => { const element = frame(); const done = loaded(element); form(to('html'), 'get', '', element.name); return done; },
  'form POST': (to) => { const element = frame(); const done = loaded(element); form(to('html'), 'post', '', element.name); return done; },
  'form POST multipart': (to) => { const element = frame(); const done = loaded(element); form(to('html'), 'post', 'multipart/form-data', element.name); return done; },
  'form POST text/plain': (to) => { const element = frame(); const done = loaded(element); form(to('html'), 'post', 'text/plain', element.name); return done; },
  'img': (to) => loads(make('img'), to('gif')),
  'img crossorigin': (to) => loads(make('img', { crossOrigin: 'anonymous' }), to('gif')),
  'video': async (to) => { const seen = await loads(make('video', { preload: 'auto' }), to('mp4')); return seen === 'fails' ? 'sent' : seen; },
  'script': (to) => loads(make('script'), to('js')),
  'script crossorigin': (to) => loads(make('script', { crossOrigin: 'anonymous' }), to('js')),
  'module script': (to) => loads(make('script', { type: 'module' }), to('js')),
  'dynamic import': async (to) => { await import(to('js')); return 'works'; },
  'stylesheet': (to) => loads(make('link', { rel: 'stylesheet' }), to('css'), 'href'),
  'font': async (to) => { const font = new FontFace('f', `url("${to('woff2')}")`); await font.load().catch(() => {}); return 'sent'; },
  'prefetch': async (to) => { await within(1500, loads(make('link', { rel: 'prefetch' }), to('js'), 'href')); return 'sent'; },
  'preload': (to) => loads(make('link', { rel: 'preload', as: 'image' }), to('gif'), 'href'),
  'object': async (to) => { const seen = await loads(make('object'), to('html'), 'data'); return seen && 'sent'; },
  'embed': async (to) => { const seen = await loads(make('embed', { type: 'text/html' }), to('html')); return seen && 'sent'; },
  'iframe': (to) => { const element = frame(); const done = loaded(element); element.src = to('html'); return done; },
  'WebSocket': (to) => new Promise((done) => {
    const socket = new WebSocket(to('json').replace('http:', 'ws:'));
    socket.onmessage = ({ data }) => done(data === 'ok' ? 'works' : 'fails');
    socket.onerror = () => done('fails');
  }),
  'EventSource': (to) => new Promise((done) => {
    const source = new EventSource(to('sse'));
    const end = (seen) => { source.close(); done(seen); };
    source.onmessage = ({ data }) => end(data === 'ok' ? 'works' : 'fails');
    source.onerror = () => end('fails');
  }),
  'Worker importScripts': (to) => imports('/?worker', to),
  'blob Worker importScripts': async (to) => {
    const script = await (await fetch('/?worker')).blob();
    return imports(URL.createObjectURL(script), to);
  },
  'location': (to) => { const element = frame({ src: `${location.origin}/?go=${encodeURIComponent(to('html'))}` }); return within(1500, loaded(element)).then(() => new Promise((done) => { setTimeout(done, 700, 'sent'); })); },
  'window.open': async (to) => { window.open(to('html'), '_blank'); return 'sent'; },
  'link': async (to) => { const element = make('a', { href: to('html'), target: '_blank', rel: 'opener' }); document.body.append(element); element.click(); return 'sent'; },
  'link noreferrer': async (to) => { const element = make('a', { href: to('html'), target: '_blank', rel: 'noreferrer' }); document.body.append(element); element.click(); return 'sent'; },
  'meta refresh': (to) => { const element = frame({ src: `${location.origin}/?refresh=${encodeURIComponent(to('html'))}` }); return within(1500, loaded(element)).then(() => new Promise((done) => { setTimeout(done, 700, 'sent'); })); },
  'redirect': (to) => read(`/redirect?to=${encodeURIComponent(to('json'))}`),
  'redirect of a let-in site': (to) => read(`${window.redirector}${encodeURIComponent(to('json'))}`),
  'img over a let-in site': (to) => loads(make('img'), `${window.redirector}${encodeURIComponent(to('gif'))}`),
  'form over a let-in site': (to) => { const element = frame(); const done = loaded(element); form(`${window.redirector}${encodeURIComponent(to('html'))}`, 'post', '', element.name); return done; },
  'sandboxed frame, img': async (to) => {
    const element = frame({ sandbox: '', srcdoc: `<img src="${to('gif').replaceAll('&', '&amp;')}">` });
    await loaded(element);
    return 'sent';
  },
  'sandboxed frame': (to) => new Promise((done) => {
    addEventListener('message', ({ data }) => done(data), { once: true });
    const text = `<script>fetch(${JSON.stringify(to('json'))}).then((answer) => answer.json()).then(() => 'works', () => 'fails').then((seen) => parent.postMessage(seen, '*'))<\/script>`;
    document.body.append(make('iframe', { srcdoc: text, sandbox: 'allow-scripts' }));
  }),
};

/** What the page saw of it: `works`, `fails`, `sent` where it can see no more, `nothing` where it waited in vain. */
globalThis.go = (way, to, name) => {
  const query = `way=${encodeURIComponent(way)}&page=${encodeURIComponent(name)}`;
  return within(5000, ways[way]((kind) => `${to}/x.${kind}?${query}`)).catch(() => 'fails');
};

const onwards = new URLSearchParams(location.search);
if (onwards.has('go')) location.href = onwards.get('go');
if (onwards.has('refresh')) document.head.append(make('meta', { httpEquiv: 'refresh', content: `0; url=${onwards.get('refresh')}` }));

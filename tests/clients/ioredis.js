// A work-out with ioredis: node ioredis.js HOST PORT (with NODE_PATH where it is installed)

const Redis = require('ioredis');
const { version } = require('ioredis/package.json');
const { assert, workOut, sleep, until, range, SCRIPT } = require('./steps.js');

const [host, port] = process.argv.slice(2);
const KEY = 'work-out:ioredis';

async function connect() {
  const client = new Redis({ host, port: Number(port), connectionName: 'work-out', lazyConnect: true, retryStrategy: null });
  client.on('error', () => {});
  await client.connect();
  return client;
}

workOut(version, connect, client => client.disconnect(), {
  async handshake(r) {
    assert.equal(await r.ping(), 'PONG');
    assert.equal(await r.client('GETNAME'), 'work-out');
  },
  async 'get-set'(r) {
    assert.equal(await r.set(KEY, 'value'), 'OK');
    assert.equal(await r.get(KEY), 'value');
    await r.hset(`${KEY}:h`, { a: 1, b: 2 });
    assert.deepEqual(await r.hgetall(`${KEY}:h`), { a: '1', b: '2' });
  },
  async pipeline(r) {
    const pipe = r.pipeline();
    for (const n of range(100)) pipe.set(`${KEY}:${n}`, n).get(`${KEY}:${n}`);
    const replies = await pipe.exec();
    assert.deepEqual(replies.filter((_, n) => n % 2), range(100).map(n => [null, String(n)]));
  },
  async multi(r) {
    const replies = await r.multi().set(`{${KEY}}a`, 1).incr(`{${KEY}}a`).exec();
    assert.deepEqual(replies, [[null, 'OK'], [null, 2]]);
  },
  async watch(r, fresh) {
    const other = await fresh();
    await r.watch(`{${KEY}}w`);
    await other.set(`{${KEY}}w`, 10);
    assert.equal(await r.multi().incr(`{${KEY}}w`).exec(), null);
  },
  async pubsub(r, fresh) {
    const publisher = await fresh();
    const found = [];
    r.on('message', (_, message) => found.push(message));
    r.on('pmessage', (_, __, message) => found.push(message));
    assert.equal(await r.subscribe(`${KEY}:news`), 1);
    assert.equal(await r.psubscribe(`${KEY}:p*`), 2);
    for (const n of range(3)) await publisher.publish(`${KEY}:news`, n);
    await publisher.publish(`${KEY}:pattern`, 'last');
    await until('four messages', () => found.length === 4);
    assert.deepEqual(found.filter(message => message !== 'last'), ['0', '1', '2']);
    assert.equal(await r.unsubscribe(`${KEY}:news`), 1);
  },
  async scan(r) {
    await Promise.all(range(300).map(n => r.set(`${KEY}:scan:${n}`, 1)));
    const found = new Set();
    for await (const keys of r.scanStream({ match: `${KEY}:scan:*`, count: 50 })) keys.forEach(key => found.add(key));
    assert.equal(found.size, 300);
  },
  async script(r) {
    const sha = await r.script('LOAD', SCRIPT);
    assert.equal(await r.evalsha(sha, 1, KEY, 'by script'), 'by script');
    r.defineCommand('again', { numberOfKeys: 1, lua: `${SCRIPT} -- again` });
    assert.equal(await r.again(KEY, 'again'), 'again');
  },
  async blocking(r, fresh) {
    const other = await fresh();
    await r.del(`${KEY}:list`);
    assert.equal(await r.blpop(`${KEY}:list`, 1), null);
    const waiting = r.blpop(`${KEY}:list`, 4);
    waiting.catch(() => {});
    await sleep(100);
    await other.rpush(`${KEY}:list`, 'element');
    assert.deepEqual(await waiting, [`${KEY}:list`, 'element']);
  },
});

// Neo4j Labs' wrapper of the Query API, in the manner of its drivers: URL. The password is worth nothing.
// To be bundled (see suite.py): the package has modules, and calls them CommonJS, which only bundlers forgive.
import neo4j from '@neo4j-labs/experimental-query-api-wrapper';

const [url] = process.argv.slice(2);

async function check(name, run) {
  try {
    const found = await run();
    console.log(found === true ? `ok      ${name}` : `FAILED  ${name}: ${JSON.stringify(found)}`);
  } catch (error) {
    console.log(`FAILED  ${name}: ${error.stack?.replaceAll('\n', ' ')}`);
  }
}

const wrapper = neo4j.wrapper(url, neo4j.auth.basic('any', 'thing'));

async function run(query, parameters, mode = 'WRITE') {
  const session = wrapper.session({ database: 'neo4j', defaultAccessMode: mode });
  try {
    return await session.run(query, parameters);
  } finally {
    await session.close();
  }
}

async function main() {
  await check('query-api-wrapper, parameters of every kind come and go', async () => {
    const { records } = await run('RETURN $i AS i, $f AS f, $s AS s, $l AS l, $m AS m, $d AS d', {
      i: neo4j.int(7), f: 1.5, s: 'ä', l: ['a', null, true], m: { k: 'v' }, d: new neo4j.types.Date(2024, 2, 29),
    });
    const [record] = records;
    const found = [record.get('i').toString(), record.get('f'), record.get('s'), record.get('l'), record.get('m').k,
      record.get('d').toString()];
    return JSON.stringify(found) === JSON.stringify(['7', 1.5, 'ä', ['a', null, true], 'v', '2024-02-29']) || found;
  });
  await check('query-api-wrapper, it writes, and reads on from its bookmark', async () => {
    const session = wrapper.session({ database: 'neo4j' });
    const made = await session.run('CREATE (n:Wrapped {name: $name}) RETURN n', { name: 'Zoë' });
    const { records } = await session.run('MATCH (n:Wrapped) RETURN n');
    await session.close();
    return (made.summary.counters.updates().nodesCreated === 1 && records[0].get('n').properties.name === 'Zoë')
      || made.summary;
  });
  await check("query-api-wrapper, a mistake is the server's", async () => {
    try {
      return await run('OOPS');
    } catch (error) {
      return error.code === 'Neo.ClientError.Statement.SyntaxError' || String(error.code);
    }
  });
  await check('query-api-wrapper, its access mode reaches the server', async () => {
    try {
      return await run('CREATE (n) RETURN n', {}, 'READ');
    } catch (error) {
      return error.code === 'Neo.ClientError.Statement.AccessMode' || String(error.code);
    }
  });
  await check('query-api-wrapper, a thousand rows', async () => {
    const { records } = await run('UNWIND range(1, 1000) AS n RETURN n');
    return records.length === 1000 || records.length;
  });
  await wrapper.close();
}

main();

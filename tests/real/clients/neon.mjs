// Neon's own libraries: BASE_URL SQL_URL. The key and the password that they insist on are worth nothing.
import { createApiClient } from '@neondatabase/api-client';
import { neon, neonConfig } from '@neondatabase/serverless';

const [base, sqlUrl] = process.argv.slice(2);

async function check(name, run) {
  try {
    const found = await run();
    console.log(found === true ? `ok      ${name}` : `FAILED  ${name}: ${JSON.stringify(found)}`);
  } catch (error) {
    console.log(`FAILED  ${name}: ${error.stack?.replaceAll('\n', ' ')}`);
  }
}

const api = createApiClient({ apiKey: 'any', baseURL: base });

await check('@neondatabase/api-client, projects', async () => {
  const { status, data } = await api.listProjects({});
  return (status === 200 && data.projects.length === 2) || data;
});
await check('@neondatabase/api-client, one project, by its id', async () => {
  const { data } = await api.getProject('quiet-river-12345678');
  return data.project.name === 'Production' || data;
});
await check('@neondatabase/api-client, a branch is made', async () => {
  const { status, data } = await api.createProjectBranch('quiet-river-12345678', { branch: { name: 'mine' } });
  return (status === 201 && data.branch.name === 'mine') || data;
});
await check("@neondatabase/api-client, an error of the API's", async () => {
  try {
    return (await api.getProject('none')).data;
  } catch (error) {
    return (error.response?.status === 404 && error.response.data.message === 'project not found') || String(error);
  }
});
await check("@neondatabase/api-client, an error of sidekey's own is one of the API's", async () => {
  try {
    return (await createApiClient({ apiKey: 'any', baseURL: `${base}-not-there` }).listProjects({})).data;
  } catch (error) {
    return (error.response?.status === 404 && error.response.headers['sidekey-error'] === 'no_route') || String(error);
  }
});

neonConfig.fetchEndpoint = () => sqlUrl;
const sql = neon('postgresql://any:thing@db.example/neondb');

await check('@neondatabase/serverless, a query over HTTP', async () => {
  const rows = await sql`SELECT ${1}::int AS n`;
  return (rows.length === 1 && rows[0].n === 1) || rows;
});
await check('@neondatabase/serverless, the same, with arrays for rows', async () => {
  const found = await neon('postgresql://any:thing@db.example/neondb', { arrayMode: true, fullResults: true })`SELECT 1 AS n`;
  return (found.rows[0][0] === 1 && found.fields[0].name === 'n') || found;
});

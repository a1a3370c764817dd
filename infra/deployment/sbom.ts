// `npm run sbom`: a software bill of materials of what is deployed, CycloneDX, on standard output. npm makes it for
// everything; its own `--omit dev` also leaves out what both this program and its tools need.

import { execFileSync } from 'node:child_process';

const SBOM_MS = 60_000;
const DEVELOPMENT = 'cdx:npm:package:development';

interface Component {
  readonly 'bom-ref': string;
  readonly properties?: readonly { readonly name: string; readonly value: string }[];
}

interface Bom {
  readonly components: readonly Component[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn?: readonly string[] }[];
}

const npm = process.env.npm_execpath;
if (npm === undefined) {
  console.error('Run this as `npm run sbom`.');
  process.exit(1);
}
const command = [npm, 'sbom', '--sbom-format=cyclonedx', '--sbom-type=application', '--package-lock-only'];
const output = execFileSync(process.execPath, command, {
  timeout: SBOM_MS,
  maxBuffer: 1 << 26,
  stdio: ['ignore', 'pipe', 'inherit'],
});
const bom = JSON.parse(output.toString()) as Bom;

const isDeployed = ({ properties = [] }: Component) =>
  !properties.some(({ name, value }) => name === DEVELOPMENT && value === 'true');
const development = new Set(
  bom.components.filter((component) => !isDeployed(component)).map((component) => component['bom-ref']),
);
const deployed = {
  ...bom,
  components: bom.components.filter(isDeployed),
  dependencies: bom.dependencies
    .filter(({ ref }) => !development.has(ref))
    .map(({ ref, dependsOn = [] }) => ({
      ref,
      dependsOn: dependsOn.filter((each) => !development.has(each)),
    })),
};
console.log(JSON.stringify(deployed, null, 2));

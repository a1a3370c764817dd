// Runs before every npm script, on whatever Node npm found: old syntax on purpose.
// The package `node-<os>-<cpu>` (an optional dependency) puts a Node 24 first in the scripts' PATH; where there
// is none for the platform, or it was left out, the machine's own Node has to be recent enough.
'use strict';

var major = Number(process.versions.node.split('.')[0]);
if (major < 24) {
  console.error(
    'mta-sts-refresher needs Node.js 24 or newer to run, and this is ' +
      process.version +
      ' (' +
      process.platform +
      ' ' +
      process.arch +
      ').\n' +
      'On Linux and Windows `npm ci` brings one along, unless optional dependencies are left out (--omit=optional).\n' +
      'Elsewhere please install Node.js 24 yourself: https://nodejs.org/',
  );
  process.exit(1);
}

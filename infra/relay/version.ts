/** Put in by bundle.ts. */
declare const RELAY_VERSION: string | undefined;

/** Of the package; the sources themselves are of no version. */
export const VERSION = typeof RELAY_VERSION === 'string' ? RELAY_VERSION : 'development';

// Whether tests do what takes long by nature, too: `npm test -- --thorough`, and the scripts that say it.

export const THOROUGH_VARIABLE = 'TEST_THOROUGH';

export const THOROUGH = process.env[THOROUGH_VARIABLE] === '1';

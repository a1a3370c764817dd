// placeholder
declare const brand: unique symbol;
export type Domain = string & { readonly [brand]: 'policy domain' };

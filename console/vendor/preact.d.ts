// What the console uses of Preact.
export function h(type: any, props: any, ...children: any[]): any;
export function render(what: any, where: Element): void;
export const Fragment: any;

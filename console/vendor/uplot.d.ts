// What the console uses of uPlot.
export default class uPlot {
  constructor(options: any, data: any, where: Element);
  setData(data: any): void;
  setSize(size: { width: number; height: number }): void;
  destroy(): void;
  static paths: { bars?(options: any): any; stepped?(options: any): any };
}

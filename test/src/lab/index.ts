// SPDX-License-Identifier: GPL-2.0-or-later
// The lab: real processes, started and stopped by the test that wants them.

export { Child, type ChildOptions, type Exit } from './child.js';
export { type EtcdEvent, EtcdHttp } from './etcd-http.js';
export { type FioJob, type FioSide, parseFio } from './fio.js';
export { type CommandOptions, type CommandResult, Lab, type LabOptions, type Params, type PoolOptions } from './lab.js';
export { type PoolState } from './pools.js';
export { Network } from './network.js';
export { freePort } from './ports.js';
export { type ProcUsage, procUsage, processesNaming } from './proc.js';
export { type Programs, findPrograms } from './programs.js';
export { Register, type RegisterFigures } from './register.js';
export { sleep, until, type UntilOptions } from './wait.js';

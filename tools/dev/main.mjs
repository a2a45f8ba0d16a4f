// SPDX-License-Identifier: GPL-2.0-or-later
console.error('The dev tool is being written.');
process.exitCode = 1;

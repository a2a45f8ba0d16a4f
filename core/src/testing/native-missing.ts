// SPDX-License-Identifier: GPL-2.0-or-later

import { isVitastorError } from '../errors.js';
import { loadNativeClient } from '../native/addon.js';

/** Why tests that need the native client are skipped; false: they need not be. */
export function nativeMissing(): string | false {
  try {
    loadNativeClient();
    return false;
  } catch (error) {
    return isVitastorError(error) ? error.message : 'the native client does not load';
  }
}

// Dark or light: as the system says, unless a person has chosen. The choice is no secret and outlives the tab.

import { effect, signal } from '@preact/signals';

export type Theme = 'auto' | 'light' | 'dark';

const NAME = 'hpc-queue.theme';

export const theme = signal<Theme>(stored());

/** Which colors they are; for what is painted, and not styled. */
export const colors = signal('');

function stored(): Theme {
  try {
    const value = localStorage.getItem(NAME);
    return value === 'light' || value === 'dark' ? value : 'auto';
  } catch {
    return 'auto';
  }
}

export function next(): void {
  theme.value = theme.value === 'auto' ? 'light' : theme.value === 'light' ? 'dark' : 'auto';
  try {
    if (theme.value === 'auto') localStorage.removeItem(NAME);
    else localStorage.setItem(NAME, theme.value);
  } catch {
    // Then it is for this tab only.
  }
}

const system = matchMedia('(prefers-color-scheme: dark)');
const dark = signal(system.matches);
system.addEventListener('change', () => (dark.value = system.matches));

effect(() => {
  const chosen = theme.value === 'auto' ? (dark.value ? 'dark' : 'light') : theme.value;
  document.documentElement.dataset['theme'] = chosen;
  colors.value = chosen;
});

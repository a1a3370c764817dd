import { test } from 'node:test';
import { tellStory } from './story.ts';

test('one daily run over a table with a policy in every state', (t) => tellStory(t));

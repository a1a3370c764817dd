import { startSqs } from '../../infra/local/sqs.ts';
import { serve } from './remote.ts';

export type QueueOperations = { start(): Promise<string>; count(name: string): Promise<number> };

let sqs: Awaited<ReturnType<typeof startSqs>>;

serve({
  async start() {
    sqs = await startSqs();
    return sqs.endpoint;
  },
  async count(name) {
    const { visible = 0, delayed = 0 } = (await sqs.summaries()).find((queue) => queue.name === name) ?? {};
    return visible + delayed;
  },
} satisfies QueueOperations);
